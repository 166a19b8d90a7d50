"""The core compiled for another processor, and asked without Python, possibly in an emulator::

    python -m tests.tools.cross                              # for this machine
    python -m tests.tools.cross --compiler aarch64-linux-gnu-g++ --emulator qemu-aarch64

Dendrograms, cuts, coverage and selections must be those of the reference, to the last bit.  On Debian the
compiler and the emulator are in the packages g++-aarch64-linux-gnu and qemu-user.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import reprune

ROOT = Path(__file__).parents[2]
FLAGS = "-std=c++17 -O2 -ffp-contract=off -pthread -Wall -Wextra -Werror".split()
METHODS = ("ward", "single", "complete", "average")
END, DENDROGRAMS, COVERAGE, SELECTION = range(4)
Problem = tuple[str, bytes, list[np.ndarray]]  # (what it is, what the program is asked, what it must answer)


def compiled(compiler: str, folder: Path, jobs: int) -> Path:
    """The program, linked statically, so that an emulator needs no libraries."""
    sources = [path for path in (ROOT / "csrc").rglob("*.cpp") if path.name != "bindings.cpp"]
    sources.append(ROOT / "tests" / "tools" / "core_without_python.cpp")

    def compile_one(source: Path) -> str:
        made = folder / f"{source.stem}.o"
        command = [*shlex.split(compiler), *FLAGS, f"-I{ROOT / 'csrc'}", "-c", str(source), "-o", str(made)]
        if source.name == "scan_x86.cpp":  # the compiler's own header has undefined registers
            command += ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
        subprocess.run(command, check=True)
        return str(made)

    with ThreadPoolExecutor(jobs) as pool:
        objects = list(pool.map(compile_one, sources))
    program = folder / "core"
    subprocess.run([*shlex.split(compiler), "-static", "-pthread", *objects, "-o", str(program)], check=True)
    return program


def integers(*values: int) -> bytes:
    return np.array(values, np.int64).tobytes()


def points(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    if kind == "normal":
        return rng.normal(size=shape)
    if kind == "tied":
        return rng.integers(0, 3, shape).astype(float)
    if kind == "heavy":
        return rng.standard_t(2, shape)
    return 1e-300 * rng.normal(size=shape)  # tiny: their squares are 0


def problems(rng: np.random.Generator) -> Iterator[Problem]:
    """Some of every kind."""
    shapes = [(3, 1, 2), (3, 2, 1), (4, 17, 9), (2, 64, 1), (2, 100, 25), (1, 300, 9)]
    for b, n, d in shapes:
        for kind in ("normal", "tied", "heavy", "tiny"):
            for number, method in enumerate(METHODS):
                x = points(kind, (b, n, d), rng)
                z = reprune.linkage(x, method, backend="reference")
                heights = np.median(z[:, :, 2], axis=1) if n > 1 else np.zeros(b)
                labels = reprune.cut(z, heights, backend="reference")
                asked = integers(DENDROGRAMS, number, 2, b, n, d) + heights.tobytes() + x.tobytes()
                yield f"{method} of {b} x {n} x {d}, {kind}", asked, [z, labels]
    for filters, channels, clusters, keep in ((8, 5, 4, 8), (64, 33, 16, 20), (200, 40, 90, 100)):
        labels = rng.integers(0, clusters, (filters, channels)).astype(np.int32)
        answer = reprune.max_coverage(labels, keep, 7, name="layer", backend="reference")
        asked = integers(COVERAGE, filters, channels, clusters, keep, 7) + labels.tobytes()
        yield f"coverage of {filters} x {channels}", asked, list(answer)
    for filters, channels, side, keep in ((16, 8, 3, 5), (64, 16, 3, 32), (48, 24, 1, 12)):
        for norm in (False, True):
            weight = rng.normal(size=(filters, channels, side, side)).astype(np.float32)
            chosen = reprune.select_filters(
                weight, keep, seed=3, ties="norm" if norm else "random", name="layer", backend="reference"
            )
            kernels = np.ascontiguousarray(weight.reshape(filters, channels, -1).swapaxes(0, 1))
            asked = integers(SELECTION, filters, channels, side * side, keep, 3, norm, 2) + kernels.tobytes()
            yield (
                f"selection of {weight.shape}, {chosen.gains.sum()} covered",
                asked,
                [chosen.order, chosen.gains],
            )


def differences(program: Path, emulator: str, seed: int) -> tuple[int, list[str]]:
    """How many problems there were, and those whose answers are not the reference's."""
    drawn = list(problems(np.random.default_rng(seed)))
    asked = b"".join(question for _, question, _ in drawn) + integers(END)
    run = subprocess.run([*shlex.split(emulator), str(program)], input=asked, capture_output=True)
    if run.returncode:
        raise RuntimeError(f"{program}: exit status {run.returncode}: {run.stderr.decode()}")
    wrong, rest = [], run.stdout
    for what, _, answers in drawn:
        for answer in answers:
            said, rest = rest[: answer.nbytes], rest[answer.nbytes :]
            if said != answer.tobytes() and what not in wrong:
                wrong.append(what)
    if rest:
        wrong.append(f"{len(rest)} bytes too many")
    return len(drawn), wrong


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--compiler", default="g++")
    parser.add_argument("--emulator", default="", help="command before the program's name")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = compiled(options.compiler, Path(folder), options.jobs)
        count, wrong = differences(program, options.emulator, options.seed)
    print(f"{count} problems, {len(wrong)} with another answer than the reference's")
    print(*wrong, sep="\n", end="")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
