"""Run the backend "cpp": the C++ extension, on as many threads as cores and memory allow."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...aliases import Floats
from .. import reference
from ..arrays import integer_table
from ..arrays import like as restore
from ..arrays import to_floats as floats
from ..problem import LayerProblem, Selection
from ..room import threads_within
from . import core, num_threads
from .protocol import Report

__all__ = ["cover", "cut", "floats", "integer_table", "link", "pairwise", "restore", "select"]


def link(batches: Sequence[Floats], names: Sequence[str], method: str) -> list[npt.NDArray[np.float64]]:
    """Compute the dendrograms; raise `MemoryError` where "complete" or "average" exceed the memory."""
    index = reference.METHODS.index(method)
    if len(batches) == 1:
        (points,) = batches
        threads = min(num_threads(), len(points)) if len(points) > 1 else 1
        if method in _NEEDS_ROOM:
            threads = _threads([points.shape[1:]] * threads, method, names[0])
        return [core().linkage(points, index, threads)]
    largest = heapq.nlargest(num_threads(), (points.shape[1:] for points in batches))
    threads = _threads(largest, method, "points")
    trees = core().linkage_ragged([points[0] for points in batches], index, threads)
    return [Z[None] for Z in trees]


def pairwise(batches: Sequence[Floats], names: Sequence[str]) -> list[npt.NDArray[np.float64]]:
    """Compute the distances; raise `MemoryError` where they exceed the memory."""
    need = [8 * len(points) * points.shape[1] ** 2 for points in batches]
    threads_within(
        [sum(need)], f"{names[need.index(max(need))]}: all distances", "fewer points or problems need less"
    )
    return [core().pairwise(points, num_threads()) for points in batches]


def link_condensed(
    distances: npt.NDArray[np.float64], method: str, name: str = "distances"
) -> npt.NDArray[np.float64]:
    """Compute Z [n-1, 4] from condensed distances [n (n-1) / 2].

    They are in the order of scipy's `pdist`, C-contiguous and finite.

    Ward's method takes the distances to be Euclidean. Arguments are not checked. `MemoryError` names the
    argument `name`.
    """
    n = points_of(distances)
    _room_for(n, name)
    Z: npt.NDArray[np.float64] = core().linkage_condensed(distances, n, reference.METHODS.index(method))
    return Z


def link_if_unique(
    numbers: npt.NDArray[np.float64], method: str, name: str
) -> npt.NDArray[np.float64] | None:
    """Compute Z [n-1, 4] of points [n, d] or condensed distances, n >= 2, if it is unique.

    It is None if two merges cost the same up to rounding, so that another Z is equally valid. Arguments are
    not checked. `MemoryError` names the argument `name`.
    """
    index = reference.METHODS.index(method)
    if numbers.ndim == 2:
        _threads([numbers.shape], method, name)
        Z: npt.NDArray[np.float64] | None = core().linkage_if_unique(numbers, index)
    else:
        n = points_of(numbers)
        _room_for(n, name)
        Z = core().linkage_condensed_if_unique(numbers, n, index)
    return Z


def points_of(distances: npt.NDArray[np.float64]) -> int:
    """Return the n of condensed distances [n (n-1) / 2], rounded down if there is no such n."""
    return (1 + math.isqrt(1 + 8 * len(distances))) // 2


def cut(trees: npt.NDArray[np.float64], heights: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Label all trees in one call."""
    labels: npt.NDArray[np.int32] = core().cut(trees, heights, num_threads())
    return labels


def cover(
    labels: npt.NDArray[Any], keep: int, seed: int, name: str, norms: npt.NDArray[np.float64] | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cover one table of labels."""
    clusters = int(labels.max(initial=0)) + 1
    if clusters > len(labels):  # the core counts clusters in arrays of at most O
        columns = [np.unique(column, return_inverse=True)[1] for column in labels.T]
        labels, clusters = np.stack(columns, axis=1), len(labels)
    table = np.ascontiguousarray(labels, dtype=np.int32)
    found: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] = core().max_coverage(
        table, clusters, keep, seed, name, norms
    )
    return found


def select(
    problems: Sequence[LayerProblem], seed: int, ties: str, labels: bool, report: Report | None
) -> list[Selection]:
    """Select from all problems in one call; threads share the channels of all layers."""
    given = [(p.name, list(p.tables), p.keep) for p in problems]
    found = core().select_layers(given, seed % 2**64, ties == "norm", num_threads(), labels, report)
    return [
        Selection(np.sort(order), order, gains, tuple(heights), columns.T, clusters)
        for order, gains, heights, columns, clusters in found
    ]


def _room_for(n: int, name: str) -> None:
    """Raise MemoryError unless there is room for the square of the condensed distances of n points."""
    threads_within(
        [_square(n)],
        f"{name}: condensed distances of {n:,} points are laid out in a square",
        "fewer points, or, by 'ward' or 'single', observations [n, d] need less",
    )


def _square(n: int) -> int:
    """Return the bytes that the core needs for the distances of n points and its notes on them."""
    return 8 * n * (n + 16) + 128 * n


_NEEDS_ROOM = ("complete", "average")
"""Methods that keep the distances of all points of a problem."""


def _threads(shapes: Sequence[tuple[int, ...]], method: str, name: str) -> int:
    """Return how many problems of shapes [n, d], largest first, fit in memory at once."""
    if method not in _NEEDS_ROOM or not shapes:
        return max(1, len(shapes))
    n = shapes[0][0]
    return threads_within(
        [_square(n) + 16 * n * d for n, d in shapes],
        f"{name}: method {method!r} keeps the distances of all {n:,} points",
        "fewer points need less, and 'ward' and 'single' keep no distances",
    )
