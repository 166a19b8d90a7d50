"""How long the host takes to start a selection on a GPU, measured without one.

Run: python -m benchmarks.gpu.host [--network resnet50] [--all] [--json FILE]

A second process runs on a CUDA that computes nothing (benchmarks/gpu/no_gpu). It selects half of the filters
of the layers that scope="internal" decides about, or with --all of all convolutions: first the check that the
weights are finite, then the tables of kernels, then the selection. Times are CPU times of the thread: the
first selection (Triton's kernels are loaded or compiled), and of the others the median and the least. Of the
groups of layers that are clustered together, it says when the first and the last launch is made, in the
median, from the beginning of the selection.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from types import SimpleNamespace

import numpy as np
import torch

from benchmarks.gpu import no_gpu
from reprune import layer_problems
from reprune.bench import shapes
from reprune.clustering.backends import triton as backend
from reprune.clustering.problem import LayerProblem
from reprune.files.atomic import write_text

REPEATS = 100
STAGES = ("finite", "tables", "select")


def measure(network: str, every: bool) -> dict[str, object]:
    """Milliseconds of each stage, and what one selection calls; in a process that has no GPU's CUDA."""
    layers = [
        layer for layer in shapes.network(network) if every or layer.name.endswith((".conv1", ".conv2"))
    ]
    weights = {layer.name: torch.zeros(layer.O, layer.I, *layer.side, device="cuda") for layer in layers}
    scales = {layer.name: torch.zeros(layer.O, device="cuda") for layer in layers}
    settings = SimpleNamespace(select=None, backend="triton", ties="random", seed=0)
    real = backend.core()
    known = {name: getattr(real, name) for name in dir(real)}
    nothing = {"cover_layers": lambda *given: None, "add_squares": lambda *given: None}
    core = SimpleNamespace(**{**known, **nothing})
    backend.core = lambda: core  # type: ignore[assignment,return-value]
    together = layer_problems.together  # finds in memory whatever was there
    layer_problems.together = lambda parts: [np.ones_like(part) for part in together(parts)]

    def tables() -> list[LayerProblem]:
        return [
            LayerProblem(
                layer.name,
                layer_problems.problem_tables(
                    [(weights[layer.name], np.arange(layer.O)[:, None])],
                    settings,  # type: ignore[arg-type]
                ),
                layer.keep,
            )
            for layer in layers
        ]

    begun: list[tuple[float, dict[str, int]]] = []  # of each stage of the last run: when, and what was called

    def once() -> list[float]:
        times = []
        begun.clear()

        def clocked(call: Callable[[], object]) -> object:
            called = no_gpu.counted()
            begun.append((thread_time(), called))
            result = call()
            times.append(1e3 * (thread_time() - begun[-1][0]))
            return result

        clocked(lambda: layer_problems.require_finite(weights, scales))
        problems = clocked(tables)
        clocked(lambda: layer_problems.choose(problems, settings, 0))  # type: ignore[arg-type]
        return times

    first, groups, runs = once(), [], np.empty((REPEATS, len(STAGES)))
    for k in range(REPEATS):
        runs[k] = once()
        start, called = begun[-1]
        groups.append(group_launches(called["launches by Triton"], start))
    calls = {name: count - called[name] for name, count in no_gpu.counted().items()}
    found = {"first": first, "median": np.median(runs, 0).tolist(), "least": runs.min(0).tolist()}
    stages = {name: dict(zip(STAGES, row, strict=True)) for name, row in found.items()}
    case = network + (", all convolutions" if every else "")
    return {**stages, "calls": calls, "case": case, "groups": np.median(groups, 0).tolist()}


def group_launches(since: int, start: float) -> list[tuple[float, float]]:
    """Seconds from `start` to the first and the last of Triton's launches of each group, which cuts it."""
    found, first = [], None
    for kernel, at in no_gpu.launched(since):
        first = at if first is None else first
        if kernel == "label_kernel":
            found.append((first - start, at - start))
            first = None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="resnet50", help="a network of torchvision")
    parser.add_argument("--all", action="store_true", help="all convolutions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # in the second process
    arguments = parser.parse_args()
    if not arguments.here:
        with tempfile.TemporaryDirectory() as folder:
            try:
                environment = no_gpu.build(Path(folder))
            except FileNotFoundError as error:
                sys.exit(f"benchmarks.gpu.host: {error}")
            command = [sys.executable, "-m", "benchmarks.gpu.host", "--here", *sys.argv[1:]]
            sys.exit(subprocess.run(command, env=environment).returncode)
    found = measure(arguments.network, arguments.all)
    for name in ("first", "median", "least"):
        row = found[name]
        each = "  ".join(f"{stage} {row[stage]:8.2f}" for stage in STAGES)  # type: ignore[index]
        print(f"{name:7} {each}  all {sum(row.values()):8.2f} ms")  # type: ignore[attr-defined]
    for begin, end in found["groups"]:  # type: ignore[attr-defined]
        print(f"group: launches from {1e3 * begin:.2f} to {1e3 * end:.2f} ms of the selection")
    print("selection: " + ", ".join(f"{count} {name}" for name, count in found["calls"].items() if count))  # type: ignore[attr-defined]
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(found))


if __name__ == "__main__":
    main()
