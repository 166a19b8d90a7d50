"""Hierarchical clustering of one problem, a batch or a ragged list."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from ..aliases import Floats
from ..arguments import at_most, one_of
from . import reference
from .arrays import MOST, MOST_IN_SPACE, device_of, like, shape_of, to_floats
from .backend import core, num_threads, resolve
from .room import threads_within
from .tensors import require_finite, restore, to_float_tensor

if TYPE_CHECKING:
    import torch


@overload
def linkage(
    points: npt.NDArray[Any], method: str = "ward", *, backend: str = "auto"
) -> npt.NDArray[np.float64]: ...
@overload
def linkage(points: torch.Tensor, method: str = "ward", *, backend: str = "auto") -> torch.Tensor: ...
@overload
def linkage(
    points: Sequence[npt.NDArray[Any]], method: str = "ward", *, backend: str = "auto"
) -> list[npt.NDArray[np.float64]]: ...
@overload
def linkage(
    points: Sequence[torch.Tensor], method: str = "ward", *, backend: str = "auto"
) -> list[torch.Tensor]: ...
def linkage(points: Any, method: str = "ward", *, backend: str = "auto") -> Any:
    """Agglomerative clustering of points by Euclidean distance.

    Clusters A and B merge in the order of their height, with ``d(.,.)`` the Euclidean distance:

    ==============  ==========================================================================
    ``"ward"``      ``sqrt(2 |A||B| / (|A|+|B|)) * d(mean of A, mean of B)``
    ``"single"``    smallest ``d(a, b)`` for a in A, b in B
    ``"complete"``  largest ``d(a, b)``
    ``"average"``   mean ``d(a, b)``
    ==============  ==========================================================================

    Args:
        points: ``[n, d]`` one problem, ``[B, n, d]`` a batch, or a list of ``[n_b, d]``; numpy or torch, any
            real dtype (float16, bfloat16 and float32 are read as they are, integers as float64), any strides.
        method: the linkage.
        backend: ``"auto"``, ``"reference"``, ``"cpp"`` or ``"triton"``.

    Returns:
        ``Z [n-1, 4]``, ``[B, n-1, 4]`` or a list of ``[n_b - 1, 4]``: float64 in scipy's form, row k = (id,
        id, height, size) of the cluster with id ``n + k``, rows sorted by height and ids within a row. numpy
        in, numpy out; torch in, torch out on the same device.

    Of equally high merges the one of the smallest numbers comes first, a cluster going by the largest number
    of its points: :mod:`reprune.clustering.reference.linkage` states the rule and the formulas. "reference"
    and "cpp" give the same Z to the last bit, whatever the threads, the processor and the calls before;
    "triton" breaks ties otherwise.

    Any finite numbers will do, from the smallest that float64 has to the largest, side by side: a height is
    right to rounding wherever float64 holds it, infinite where it would be above the largest, and a whole
    number of the smallest, 5e-324, where it is near that. Only where numbers above 2^900 are there, digits
    below 2^-950 are lost.

    Raises:
        ValueError, TypeError: wrong shape, no points, NaN or infinity, unknown method or backend; another
            method than ward with the backend "triton"; more than 2^30 points, or 2^24 of more than one
            coordinate by "ward".
        MemoryError: "complete" and "average" keep the distances of all points of a problem, ``8 n^2`` bytes,
            and there is less; where that suffices, fewer problems are worked on at a time.
        BackendUnavailable: the backend cannot run here.
    """
    one_of(method, "method", reference.METHODS)
    if isinstance(points, (list, tuple)) and any(np.ndim(p) == 2 for p in points):
        return _ragged(points, method, backend)
    name = resolve(backend, device_of(points))
    _check_count(points, "points", method)
    if name == "triton":
        return _on_gpu([points], ["points"], (2, 3), method)[0]
    floats = to_floats(points, "points")
    if floats.ndim not in (2, 3):
        raise ValueError(
            f"points: expected shape [n, d] or [B, n, d], or a list of [n_b, d]; got {list(floats.shape)}"
        )
    _check_size(floats, "points")
    Z = link_batch(floats if floats.ndim == 3 else floats[None], method, name)
    return like(points)(Z if floats.ndim == 3 else Z[0])


def _ragged(points: Sequence[Any], method: str, backend: str) -> list[Any]:
    name = resolve(backend, device_of(points[0]))
    for k, p in enumerate(points):
        _check_count(p, f"points[{k}]", method)
    if name == "triton":
        return _on_gpu(points, [f"points[{k}]" for k in range(len(points))], (2,), method)
    problems = []
    for k, p in enumerate(points):
        floats = to_floats(p, f"points[{k}]")
        if floats.ndim != 2:
            raise ValueError(f"points[{k}]: expected shape [n, d]; got {list(floats.shape)}")
        _check_size(floats, f"points[{k}]")
        problems.append(floats)
    results = link_ragged(problems, method, name)
    return [like(p)(Z) for p, Z in zip(points, results, strict=True)]


def _on_gpu(
    given: Sequence[Any], names: Sequence[str], dimensions: tuple[int, ...], method: str
) -> list[Any]:
    """Problems or batches; those of one shape and dtype share a launch."""
    import torch

    from ..kernels.linkage import ward

    if method != "ward":
        raise ValueError(f"method: backend 'triton' has ward only; got {method!r}; backend='cpp' has it")
    groups: dict[Any, list[int]] = {}
    batches = []
    for k, (points, name) in enumerate(zip(given, names, strict=True)):
        batch = to_float_tensor(points, name)
        if batch.ndim not in dimensions:
            shapes = "[n, d] or [B, n, d], or a list of [n_b, d]" if len(dimensions) > 1 else "[n, d]"
            raise ValueError(f"{name}: expected shape {shapes}; got {list(batch.shape)}")
        _check_size(batch, name)
        if batch.shape[-2] > core().most_filters_on_gpu:
            raise ValueError(
                f"{name}: expected at most {core().most_filters_on_gpu} points for backend 'triton', "
                f"got {batch.shape[-2]}; backend='cpp' takes any number"
            )
        require_finite(batch, name)
        batches.append(batch if batch.ndim == 3 else batch[None])
        groups.setdefault((*batch.shape[-2:], batch.dtype, batch.device), []).append(k)
    results: list[Any] = [None] * len(batches)
    for members in groups.values():
        trees = ward(torch.cat([batches[k] for k in members]))
        parts = torch.split(trees, [len(batches[k]) for k in members])
        for k, part in zip(members, parts, strict=True):
            results[k] = restore(given[k])(part if np.ndim(given[k]) == 3 else part[0])
    return results


def _check_size(floats: Any, name: str) -> None:
    n, d = floats.shape[-2:]
    if n < 1 or d < 1:
        raise ValueError(
            f"{name}: expected at least one point of one coordinate; got shape {list(floats.shape)}"
        )


def _check_count(points: Any, name: str, method: str) -> None:
    shape = shape_of(points)
    if len(shape) < 2:
        return
    at_most(max(shape), MOST, name, "points, coordinates or problems")
    if method == "ward" and shape[-1] > 1:
        at_most(shape[-2], MOST_IN_SPACE, name, "points of more than one coordinate by method 'ward'")


def link_batch(points: Floats, method: str, backend: str, name: str = "points") -> npt.NDArray[np.float64]:
    """Points [B, n, d], float32 or float64, finite, n and d >= 1 -> [B, n-1, 4]; trusts its arguments.

    ``MemoryError`` names the argument `name`.
    """
    if backend == "cpp":
        count = min(num_threads(), len(points)) if len(points) > 1 else 1
        threads = _threads([points.shape[1:]] * count, method, name)
        Z: npt.NDArray[np.float64] = core().linkage(points, reference.METHODS.index(method), threads)
        return Z
    empty = np.empty((len(points), points.shape[1] - 1, 4))
    for k, problem in enumerate(points):
        empty[k] = reference.linkage(problem.astype(np.float64), method)
    return empty


def link_ragged(points: Sequence[Floats], method: str, backend: str) -> list[npt.NDArray[np.float64]]:
    """A list of points [n_b, d], float32 or float64, finite -> a list of [n_b - 1, 4]; trusts its
    arguments."""
    if backend == "cpp":
        largest = heapq.nlargest(num_threads(), (problem.shape for problem in points))
        threads = _threads(largest, method, "points")
        results: list[npt.NDArray[np.float64]] = core().linkage_ragged(
            points, reference.METHODS.index(method), threads
        )
        return results
    return [reference.linkage(problem.astype(np.float64), method) for problem in points]


def link_condensed(
    distances: npt.NDArray[np.float64], method: str, name: str = "distances"
) -> npt.NDArray[np.float64]:
    """Distances [n (n-1) / 2] in the order of scipy's ``pdist``, C-contiguous, finite -> Z [n-1, 4].

    By the C++ core. Ward's method takes them for Euclidean. Trusts its arguments. ``MemoryError`` names the
    argument `name`.
    """
    n = points_of(distances)
    _room_for(n, name)
    Z: npt.NDArray[np.float64] = core().linkage_condensed(distances, n, reference.METHODS.index(method))
    return Z


def link_if_unique(
    numbers: npt.NDArray[np.float64], method: str, name: str
) -> npt.NDArray[np.float64] | None:
    """Points [n, d], or distances [n (n-1) / 2] as for :func:`link_condensed`, finite, n >= 2 -> Z [n-1, 4].

    None where another Z is as right but for rounding: there are two merges that cost as good as the same. By
    the C++ core; trusts its arguments. ``MemoryError`` names the argument `name`.
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
    """The n of distances [n (n-1) / 2]; rounded down where there is none."""
    return (1 + math.isqrt(1 + 8 * len(distances))) // 2


def _room_for(n: int, name: str) -> None:
    """Raise MemoryError unless there is room for the square of the condensed distances of n points."""
    threads_within(
        [_square(n)],
        f"{name}: condensed distances of {n:,} points are laid out in a square",
        "fewer points, or, by 'ward' or 'single', observations [n, d] need less",
    )


def _square(n: int) -> int:
    """Bytes of the distances of n points as the core lays them out, and of what it notes of each point."""
    return 8 * n * (n + 16) + 128 * n


def _threads(shapes: Sequence[tuple[int, ...]], method: str, name: str) -> int:
    """How many problems there is memory for at once, if they have these shapes [n, d], the largest first."""
    if method in ("ward", "single") or not shapes:
        return max(1, len(shapes))
    n = shapes[0][0]
    return threads_within(
        [_square(n) + 16 * n * d for n, d in shapes],
        f"{name}: method {method!r} keeps the distances of all {n:,} points",
        "fewer points need less, and 'ward' and 'single' keep no distances",
    )
