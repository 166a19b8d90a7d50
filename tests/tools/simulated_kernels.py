"""Drawn problems in the compiled kernels, instruction by instruction: the C++ core's answers to the last bit.

``python -m tests.tools.simulated_kernels --problems 1000 --seed 0`` draws of nine kinds of data, of 1 to 600
points with 1 to 128 coordinates in float32 or float64, and compares the tree (`linkage`) or the clusters
(`select_filters`) of each. It takes hours on one core, prints a line for every hundred, and ends with an
error if one differs. ``--race`` looks for races too, which takes three times as long. It needs the PTX
simulator that tests/test_ptx.py runs on.
"""

import argparse
import collections
import time

import numpy as np
import torch

import reprune
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers
from reprune.kernels import linkage, select
from tests.helpers import nine_kinds
from tests.helpers.ptx import benchmarks, simulator

DIMENSIONS = (1, 2, 4, 9, 16, 25, 49, 128)
MOST = 600


def draw(seed):
    """A problem: what it is, its points [channels, n, d], and the filters to keep, 0 for a whole tree."""
    rng = np.random.default_rng(seed)
    kind = list(nine_kinds.KINDS)[seed % len(nine_kinds.KINDS)]
    d = int(rng.choice(DIMENSIONS))
    n = int(np.exp(rng.uniform(0, np.log(MOST + 1))))
    dtype = rng.choice(["float32", "float64"])
    whole = bool(rng.integers(2))
    points = nine_kinds.draw(kind, (1 if whole else 2, n, d), seed).astype(dtype)
    keep = 0 if whole else int(rng.integers(1, n + 1))
    return f"{kind}, n = {n}, d = {d}, {dtype}, " + (f"keep {keep}" if keep else "tree"), points, keep


def differs(points, keep, device):
    """Whether the kernels on `device` give another answer than the core."""
    if not keep:
        with device:
            Z = linkage.ward(torch.from_numpy(points)).numpy()
        return not np.array_equal(Z, reprune.linkage(points, backend="cpp"))
    with device:
        (found,) = select.cluster_layers([([torch.from_numpy(points)], keep)])
    (expected,) = select_layers([LayerProblem("", (points,), keep)])
    return not (
        np.array_equal(found.labels.T, expected.labels)
        and np.array_equal(found.clusters, expected.clusters)
        and tuple(found.heights.tolist()) == expected.heights
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first problem; the next has the next")
    parser.add_argument("--target", default="sm_90", help="chip; default: sm_90")
    parser.add_argument("--race", action="store_true")
    options = parser.parse_args()
    (ptxsim, _), (_, _, simulated) = simulator(), benchmarks()
    wrong, drawn, begun = [], collections.Counter(), time.monotonic()
    for number in range(options.problems):
        seed = options.seed + number
        what, points, keep = draw(seed)
        how = {"race": True, "seed": seed} if options.race else {}
        if differs(points, keep, simulated.Device(ptxsim, options.target, **how)):
            wrong.append(f"seed {seed}: {what}")
            print(wrong[-1], flush=True)
        drawn[points.shape[2]] += 1
        if (number + 1) % 100 == 0 or number + 1 == options.problems:
            took = time.monotonic() - begun
            counts = ", ".join(f"{count} of d = {d}" for d, count in sorted(drawn.items()))
            print(f"{number + 1} problems ({counts}), {len(wrong)} differ, {took:.0f} s", flush=True)
    return f"{len(wrong)} of {options.problems} problems differ" if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
