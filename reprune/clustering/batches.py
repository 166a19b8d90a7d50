"""Read one problem, a batch or a ragged list of points, and return the results of a backend in that form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..arguments import at_most
from .arrays import MOST, MOST_IN_SPACE, device_of, shape_of
from .backends import module, resolve
from .backends.protocol import Backend

Run = Callable[[Backend, Sequence[Any], Sequence[str]], list[Any]]
"""`run(functions, batches, names)`: a result [B, ...] for each of the batches [B, n, d]."""


def in_batches(points: Any, backend: str, run: Run, most_on_gpu: int, ward: bool = False) -> Any:
    """Return what `run` makes of points [n, d], [B, n, d] or a list of [n_b, d].

    Args:
        points: numpy or torch, any real dtype.
        backend: The backend, or "auto", which means the CPU for problems of more points than `most_on_gpu`.
        run: Computes all results.
        most_on_gpu: Points of a problem.
        ward: Whether the limits of Ward's linkage hold.

    Raises:
        ValueError, TypeError: A wrong shape, no points, too many, NaN or infinity.
    """
    if isinstance(points, (list, tuple)) and any(np.ndim(p) == 2 for p in points):
        return _in_list(points, backend, run, most_on_gpu, ward)
    on_gpu = _check_count(points, "points", ward) <= most_on_gpu
    functions = module(resolve(backend, device_of(points), on_gpu))
    floats = _floats(functions, points, "points", (2, 3))
    single = floats.ndim == 2
    (result,) = run(functions, [floats[None] if single else floats], ["points"])
    return functions.restore(points)(result[0] if single else result)


def _in_list(points: Sequence[Any], backend: str, run: Run, most_on_gpu: int, ward: bool) -> list[Any]:
    names = [f"points[{k}]" for k in range(len(points))]
    most = max([_check_count(one, name, ward) for one, name in zip(points, names, strict=True)])
    functions = module(resolve(backend, device_of(points[0]), most <= most_on_gpu))
    batches = [_floats(functions, one, name, (2,))[None] for one, name in zip(points, names, strict=True)]
    results = run(functions, batches, names)
    return [functions.restore(one)(result[0]) for one, result in zip(points, results, strict=True)]


def _floats(functions: Backend, points: Any, name: str, dimensions: tuple[int, ...]) -> Any:
    """Return `points` as finite floats of one of these numbers of `dimensions`."""
    floats = functions.floats(points, name)
    if floats.ndim not in dimensions:
        shapes = "[n, d] or [B, n, d], or a list of [n_b, d]" if 3 in dimensions else "[n, d]"
        raise ValueError(f"{name}: expected shape {shapes}; got {list(floats.shape)}")
    if min(floats.shape[-2:]) < 1:
        raise ValueError(
            f"{name}: expected at least one point of one coordinate; got shape {list(floats.shape)}"
        )
    return floats


def _check_count(points: Any, name: str, ward: bool) -> int:
    """Return the number of points of a problem, 0 if the shape is not known yet."""
    shape = shape_of(points)
    if len(shape) < 2:
        return 0
    at_most(max(shape), MOST, name, "points, coordinates or problems")
    if ward and shape[-1] > 1:
        at_most(shape[-2], MOST_IN_SPACE, name, "points of more than one coordinate by method 'ward'")
    return shape[-2]
