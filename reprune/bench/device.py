"""Measure the GPU backend: its times, its answers, and its distance from the hardware's limit."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from ..clustering import backends
from ..clustering.backends.tensors import to_float_tensor, to_tensor
from ..clustering.coverage import max_coverage
from ..clustering.linkage import linkage
from ..clustering.problem import LayerProblem, Selection
from ..clustering.selection import select_layers
from . import checking
from .checking import WrongAnswer
from .report import GPU
from .shapes import Layer
from .timing import Seconds, Turn

T = TypeVar("T")
SETS = 3  # of inputs, in turn, so that no run finds its data in a cache because it was the last one
HEIGHTS = 1e-6  # of the largest height: what a float32 state may be off
LEAST_EQUAL = 0.99  # of the channels; others fell on the other side of a near tie
WARM = 2  # runs before the first that counts: compilation, allocation, clocks


def clocked(call: Callable[[], object]) -> Seconds:
    """Time a call by two events on the current stream; time that the GPU waits for the host counts."""
    if backends.interpreted():
        start = perf_counter()
        call()
        return Seconds(0.0, perf_counter() - start)
    before, after = _event(), _event()
    torch.cuda.synchronize()
    before.record()
    call()
    after.record()
    after.synchronize()
    return Seconds(0.0, before.elapsed_time(after) / 1000)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def input_sets(layers: Sequence[Layer]) -> list[list[LayerProblem]]:
    """Return normal weights in float32, on the host."""
    sets = []
    for seed in range(SETS):
        rng = np.random.default_rng(seed)
        sets.append(
            [
                LayerProblem(
                    layer.name,
                    (rng.standard_normal((layer.O, layer.I, layer.d), dtype=np.float32).swapaxes(0, 1),),
                    layer.keep,
                )
                for layer in layers
            ]
        )
    return sets


def on_gpu(problems: Sequence[LayerProblem]) -> list[LayerProblem]:
    """Copy the problems to the GPU."""
    device = "cpu" if backends.interpreted() else "cuda"
    return [
        LayerProblem(p.name, tuple(torch.from_numpy(table).to(device) for table in p.tables), p.keep)
        for p in problems
    ]


def _turn(sets: Sequence[T], call: Callable[[T], object]) -> Turn:
    """Time a call on the GPU, each time with the next of `sets`."""
    following = itertools.cycle([*sets[1:], sets[0]])  # warming up took the first

    def turn() -> Mapping[str, Seconds]:
        batch = next(following)
        return {GPU: clocked(lambda: call(batch))}

    return turn


def selection_turn(name: str, layers: Sequence[Layer]) -> tuple[Turn, str]:
    """Return a function that runs the selection once, and how it was checked against the C++ core.

    Raises WrongAnswer where the GPU's answer is wrong on any of the sets of inputs.
    """
    sets = input_sets(layers)
    given = [on_gpu(problems) for problems in sets]
    equal = total = 0
    for problems, placed in zip(sets, given, strict=True):
        answer = select_layers(placed, backend="triton")
        for expected, found in zip(select_layers(problems, backend="cpp"), answer, strict=True):
            equal += same_selection(found, expected, name)
            total += len(found.clusters)
    for _ in range(WARM):
        select_layers(given[0], backend="triton")
    turn = _turn(given, partial(select_layers, backend="triton"))
    return turn, f"all picks, {equal} of {total} channels equal to cpp"


def same_selection(found: Selection, expected: Selection, name: str) -> int:
    """Return how many channels have the clusters of `expected`; raise if too few do.

    Raises WrongAnswer if heights are off, a pick is not the best there is, too many channels have other
    clusters, or picks differ although no clusters do.
    """
    who = f"{name}, {GPU}"
    labels = found.labels.cpu().numpy()
    height, truth = found.height, expected.height
    if not abs(height - truth) <= HEIGHTS * truth:
        raise WrongAnswer(f"{who}: the cut is at {height!r}, by cpp at {truth!r}")
    checking.picks(labels, found.order, found.gains, who)
    equal = sum(
        np.array_equal(checking.first_appearance(ours), checking.first_appearance(theirs))
        for ours, theirs in zip(labels.T, expected.labels.T, strict=True)
    )
    if equal < LEAST_EQUAL * labels.shape[1]:
        raise WrongAnswer(f"{who}: {equal} of {labels.shape[1]} channels have the clusters of cpp")
    if equal == labels.shape[1] and not np.array_equal(found.order, expected.order):
        raise WrongAnswer(f"{who}: other picks than cpp from the same clusters")
    return equal


def linkage_turn(name: str, points: npt.NDArray[np.float64]) -> tuple[Turn, str]:
    """Return the same as :func:`selection_turn` for dendrograms of points [B, n, d]."""
    rng = np.random.default_rng(1)
    sets = [points, *(rng.standard_normal(points.shape) for _ in range(SETS - 1))]
    given = [to_float_tensor(batch, "points") for batch in sets]
    for batch, placed in zip(sets, given, strict=True):
        found = linkage(placed, backend="triton").cpu().numpy()
        for b, expected in enumerate(linkage(batch, backend="cpp")):
            checking.same_tree(found[b], expected, f"{name}, problem {b}, {GPU}", HEIGHTS)
    return _turn(given, partial(linkage, backend="triton")), f"all of {SETS} sets by cpp"


def coverage_turn(name: str, labels: npt.NDArray[np.int32], keep: int) -> tuple[Turn, str]:
    """Return the same for coverage of labels [O, I]; the input sets permute the channels."""
    rng = np.random.default_rng(1)
    sets = [labels, *(rng.permuted(labels, axis=0) for _ in range(SETS - 1))]
    given = [to_tensor(table, "labels") for table in sets]
    for table, placed in zip(sets, given, strict=True):
        expected = max_coverage(table, keep, backend="cpp")
        found = max_coverage(placed, keep, backend="triton")
        if not all(np.array_equal(a.cpu().numpy(), b) for a, b in zip(found, expected, strict=True)):
            raise WrongAnswer(f"{name}, {GPU}: other picks than cpp")
    turn = _turn(given, lambda table: max_coverage(table, keep, backend="triton"))
    return turn, f"all picks of {SETS} sets by cpp"
