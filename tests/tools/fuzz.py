"""Drawn problems through the C++ core, each against scipy, the reference and a replay of its merges.

`python -m tests.tools.fuzz --problems 1000000 --seed 0` runs until so many problems are done (or
`--seconds`), in rounds of one kind, size and stage each, and prints what fails and the command that does
that one problem again. It ends with 1 if anything failed. A round that crashes or hangs ends its own
process, and counts as one failure.
"""

import argparse
import mmap
import os
import signal
import struct
import sys
import time

import numpy as np
from scipy.cluster import hierarchy

import reprune
from reprune import _core
from reprune.clustering import reference
from tests.helpers.isas import ISAS
from tests.tools import fuzz_draw as draw
from tests.tools import fuzz_judges as judge

METHODS = reference.METHODS
STAGES = {"linkage": 0.55, "select": 0.25, "cover": 0.1, "cut": 0.1}
SLOW = 150  # points from which the reference takes too long: it is O(n^3)
PATIENCE = 300  # seconds for a round


class Round:
    """What is drawn for all problems of a round."""

    def __init__(self, seed, number, largest):
        self.number = number
        self.rng = rng = np.random.default_rng([seed, number])
        self.stage = str(rng.choice(list(STAGES), p=list(STAGES.values())))
        self.kind = str(rng.choice(draw.KINDS))
        self.method = str(rng.choice(METHODS))
        self.dtype = rng.choice([np.float32, np.float64])
        self.threads = int(rng.choice([1, 2, 3, 7]))
        self.isa = str(rng.choice(ISAS))
        self.layout = str(rng.choice(draw.LAYOUTS))
        self.n = draw.size(rng, largest)
        self.d = int(rng.choice([1, 1, 2, 3, 4, 9, 16, 25]))
        if self.n > draw.SIZES[2][1]:  # for the lists of neighbours
            self.method, self.d = "ward", max(2, self.d)
        self.count = max(1, 600 // self.n) if self.n <= 120 else 1

    def __str__(self):
        given = (
            self.stage,
            self.kind,
            np.dtype(self.dtype).name,
            self.method if self.stage != "select" else "",
        )
        how = f"{self.threads} threads, {self.isa}, {self.layout}"
        return f"{' '.join(filter(None, given))}, n = {self.n}, d = {self.d}, {how}"

    def run(self):
        """{problem: what is wrong}."""
        _core.set_isa(self.isa)
        os.environ["REPRUNE_NUM_THREADS"] = str(self.threads)
        with np.errstate(all="ignore"):
            return {"linkage": linkage, "select": select, "cover": cover, "cut": cut}[self.stage](self)

    def batch(self):
        return draw.values(self.rng, self.kind, (self.count, self.n, self.d), self.dtype)


def linkage(r):
    batch = r.batch()
    trees = list(reprune.linkage(draw.laid_out(batch, r.layout), r.method))
    wrong = {}
    os.environ["REPRUNE_NUM_THREADS"] = "1"
    for k, (Z, plain) in enumerate(zip(trees, reprune.linkage(batch, r.method), strict=True)):
        if Z.tobytes() != plain.tobytes():
            wrong[k] = "another answer for one thread and contiguous memory"
            continue
        why = judge.against_scipy(batch[k], Z, r.method, r.kind in draw.STRICT)
        if why is None and r.n <= SLOW:
            why = judge.against_reference(batch[k], Z, r.method)
        if why is not None:
            wrong[k] = why
    if r.n <= SLOW:
        for k in judge.unlike_greedy(batch, trees, r.method):
            wrong.setdefault(int(k), "a merge of clusters that are not the nearest")
    return wrong


def select(r):
    if r.n > SLOW:
        r.count = 1
    wrong = {}
    for k in range(max(1, r.count // 4)):
        # of few points also so many that most are clustered two in turns, or lines in blocks of sixteen
        channels = int(r.rng.integers(1, 5 if r.n > 30 or r.rng.random() < 0.5 else 40))
        keep = int(r.rng.integers(1, r.n + 1))
        weight = draw.values(r.rng, r.kind, (channels, r.n, r.d), r.dtype).transpose(1, 0, 2)
        ties = str(r.rng.choice(["random", "norm"]))
        given = draw.laid_out(weight, r.layout if r.layout != "a list" else "plain")
        found = reprune.select_filters(given, keep, seed=k, ties=ties, backend="cpp")
        if r.n > SLOW:
            why = unlike_scipys_cut(weight, keep, found) if r.kind in draw.STRICT and keep < r.n else None
        else:
            why = unlike(found, reprune.select_filters(weight, keep, seed=k, ties=ties, backend="reference"))
        if why is not None:
            wrong[k] = f"keep {keep} of {r.n} in {channels} channels, ties {ties}: {why}"
    return wrong


def unlike(found, expected):
    for what in ("heights", "labels", "order", "gains", "clusters", "keep"):
        if not np.array_equal(getattr(found, what), getattr(expected, what)):
            return f"other {what} than the reference's"
    return None


def unlike_scipys_cut(weight, keep, found):
    trees = [hierarchy.linkage(judge.scaled(p)[0], "ward") for p in weight.transpose(1, 0, 2)]
    exponents = [judge.scaled(p)[1] for p in weight.transpose(1, 0, 2)]
    tops = [np.ldexp(Z[len(Z) - keep, 2], e) for Z, e in zip(trees, exponents, strict=True)]
    if not np.isclose(found.height, max(tops), rtol=1e-11):
        return f"cut at {found.height}, scipy's at {max(tops)}"
    for j, (Z, e) in enumerate(zip(trees, exponents, strict=True)):
        labels = hierarchy.fcluster(Z, np.ldexp(max(tops), -e) * (1 + 1e-10), "distance")
        if not np.array_equal(found.labels[:, j], judge.canonical(labels)):
            return f"other clusters than scipy's in channel {j}"
    return None


def cover(r):
    wrong = {}
    for k in range(max(1, r.count // 3)):
        channels, keep = int(r.rng.integers(1, 40)), int(r.rng.integers(1, r.n + 1))
        clusters = int(r.rng.choice([1, 2, max(1, r.n // 2), r.n, 1000]))
        labels = r.rng.integers(clusters, size=(r.n, channels))
        if r.kind == "tied":  # most alone in their clusters
            labels = np.where(r.rng.random(labels.shape) < 0.1, labels, np.arange(r.n)[:, None])
        norms = r.rng.integers(3, size=r.n) / 2 if r.rng.random() < 0.5 else None
        given = labels.astype(r.rng.choice([np.int64, np.int32, np.uint8 if clusters < 256 else np.uint16]))
        labels = given.astype(np.int64)
        ties = "random" if norms is None else "norm"
        found = reprune.max_coverage(
            np.asfortranarray(given) if r.layout == "fortran" else given,
            keep,
            seed=k,
            ties=ties,
            norms=norms,
            backend="cpp",
        )
        expected = reprune.max_coverage(labels, keep, seed=k, ties=ties, norms=norms, backend="reference")
        if not np.array_equal(found, expected):
            wrong[k] = (
                f"keep {keep} of {r.n}, {channels} channels, {clusters} clusters, ties {ties}: other picks"
            )
    return wrong


def cut(r):
    batch = r.batch()
    trees = reprune.linkage(batch, r.method)
    heights = np.array(
        [r.rng.choice([0, Z[r.rng.integers(r.n - 1), 2], Z[-1, 2] * r.rng.random()]) for Z in trees]
    )
    wrong = {}
    for k, labels in enumerate(reprune.cut(trees, heights, backend="cpp")):
        if not np.array_equal(labels, reference.cut(trees[k], heights[k])):
            wrong[k] = f"other clusters at {heights[k]} than the reference's"
        elif not np.array_equal(
            labels, judge.canonical(hierarchy.fcluster(trees[k], heights[k], "distance"))
        ):
            wrong[k] = f"other clusters at {heights[k]} than scipy's"
    return wrong


def problems_of(r):
    return {
        "linkage": r.count,
        "cut": r.count,
        "select": max(1, r.count // 4),
        "cover": max(1, r.count // 3),
    }[r.stage]


def work(options, state, start):
    """Rounds from `start` on, until all is done; `state` holds (round, problems done, failures)."""
    _, done, failures = struct.unpack("3q", state[:24])
    number = start
    while done < options.problems and time.time() < options.until:
        state[:24] = struct.pack("3q", number, done, failures)
        signal.alarm(options.patience)  # ends a process that hangs
        r = Round(options.seed, number, options.largest)
        wrong = r.run()
        for k, why in wrong.items():
            report(options, number, f"--problem {k}", r, why)
        done, failures, number = done + problems_of(r), failures + len(wrong), number + 1
    state[:24] = struct.pack("3q", number, done, failures)


def report(options, number, problem, r, why):
    drawn = f"--seed {options.seed} --largest {options.largest} --round {number} {problem}"
    print(f"FAILED {r}: {why}\n    python -m tests.tools.fuzz {drawn.strip()}", flush=True)


def watched(options, state, start):
    """Work in a process of its own; the signal that ended it, 0 if none did."""
    pid = os.fork()
    if pid == 0:
        try:
            work(options, state, start)
            os._exit(0)
        finally:
            sys.stdout.flush()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fuzz(options):
    """(problems done, failures)."""
    state = mmap.mmap(-1, 4096)
    start = 0
    while (code := watched(options, state, start)) != 0:
        number, done, failures = struct.unpack("3q", state[:24])
        r = Round(options.seed, number, options.largest)
        report(options, number, "", r, f"the process ended with {code}")
        start = number + 1
        state[:24] = struct.pack("3q", start, done + problems_of(r), failures + 1)
    return struct.unpack("3q", state[:24])


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--problems", type=int, default=10**9, help="stop after so many")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="or after so long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--largest", type=int, default=1400, help="most points of a problem")
    parser.add_argument("--patience", type=int, default=PATIENCE, help="seconds that a round may take")
    parser.add_argument("--round", type=int, help="this one only")
    parser.add_argument("--problem", type=int, help="of the round: tell of this one only")
    options = parser.parse_args(arguments)
    begun = time.time()
    options.until = begun + options.seconds
    if options.round is not None:
        r = Round(options.seed, options.round, options.largest)
        print(r)
        wrong = {k: why for k, why in r.run().items() if options.problem in (None, k)}
        print(*(f"problem {k}: {why}" for k, why in wrong.items()), sep="\n")
        return int(bool(wrong))
    rounds, done, failures = fuzz(options)
    took = time.time() - begun
    print(f"seed {options.seed}: {done} problems in {rounds} rounds, {failures} failed, {took:.0f} s")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
