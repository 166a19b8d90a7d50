"""Compute the hierarchical clustering of one problem, a batch or a ragged list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from ..arguments import at_most, one_of
from . import reference
from .arrays import MOST, MOST_IN_MATRIX, MOST_IN_SPACE, MOST_ON_GPU, device_of, shape_of
from .backends import module, resolve

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
    """Cluster points agglomeratively by Euclidean distance.

    Clusters A and B merge in the order of their height, with `d(.,.)` the Euclidean distance:

    ==============  ==========================================================================
    `"ward"` `sqrt(2 |A||B| / (|A|+|B|)) * d(mean of A, mean of B)`
    `"single"`    smallest `d(a, b)` for a in A, b in B
    `"complete"`  largest `d(a, b)`
    `"average"`   mean `d(a, b)`
    ==============  ==========================================================================

    Args:
        points: `[n, d]` one problem, `[B, n, d]` a batch, or a list of `[n_b, d]`; numpy or torch, any
            real dtype (float16, bfloat16 and float32 are read as they are, integers as float64), any strides.
        method: the linkage.
        backend: `"auto"`, `"reference"`, `"cpp"` or `"triton"`.

    Returns:
        `Z [n-1, 4]`, `[B, n-1, 4]` or a list of `[n_b - 1, 4]`: float64 in scipy's form, row k = (id,
        id, height, size) of the cluster with id `n + k`, rows sorted by height and ids within a row. numpy
        in, numpy out; torch in, torch out on the same device.

    Among equally high merges the one with the smallest numbers comes first; the number of a cluster is the
    largest number of its points: :mod:`reprune.clustering.reference.linkage` states the rule and the
    formulas. All backends give the same Z to the last bit, whatever the threads, the processor and the calls
    before.

    Any finite numbers are accepted, and the smallest and the largest of float64 can be mixed. Heights are
    right to rounding; above the largest float64 they are infinite, and near the smallest, 5e-324, they are
    multiples of it. Digits below 2^-950 are lost if there are numbers above 2^900.

    Raises:
        ValueError, TypeError: wrong shape, no points, NaN or infinity, unknown method or backend; more
            than 65,535 points, or 16,384 by another method than ward, with the backend "triton"; more than
            2^30 points, or 2^24 of more than one coordinate by "ward".
        MemoryError: "complete" and "average" keep the distances of all points of a problem, `8 n^2` bytes,
            and there is less; where that suffices, fewer problems are worked on at a time.
        BackendUnavailable: the backend cannot run here.

    Examples:
        >>> import numpy as np, reprune
        >>> points = np.array([[0.0, 0.0], [0.0, 1.0], [5.0, 0.0], [5.0, 3.0]])
        >>> reprune.linkage(points)
        array([[0.        , 1.        , 1.        , 2.        ],
               [2.        , 3.        , 3.        , 2.        ],
               [4.        , 5.        , 7.21110255, 4.        ]])

        Many small problems at once:

        >>> reprune.linkage(np.random.default_rng(0).normal(size=(1000, 32, 9))).shape
        (1000, 31, 4)
    """
    one_of(method, "method", reference.METHODS)
    if isinstance(points, (list, tuple)) and any(np.ndim(p) == 2 for p in points):
        return _all_of(list(points), [f"points[{k}]" for k in range(len(points))], (2,), method, backend)
    return _all_of([points], ["points"], (2, 3), method, backend)[0]


def _all_of(
    given: list[Any], names: list[str], dimensions: tuple[int, ...], method: str, backend: str
) -> list[Any]:
    """Return the tree of each problem, or the trees of each batch, of at least one of one kind of array."""
    most_points = max([_check_count(one, name, method) for one, name in zip(given, names, strict=True)])
    on_gpu = most_points <= (MOST_ON_GPU if method == "ward" else MOST_IN_MATRIX)
    functions = module(resolve(backend, device_of(given[0]), on_gpu))
    batches = []
    for one, name in zip(given, names, strict=True):
        floats = functions.floats(one, name)
        if floats.ndim not in dimensions:
            shapes = "[n, d] or [B, n, d], or a list of [n_b, d]" if 3 in dimensions else "[n, d]"
            raise ValueError(f"{name}: expected shape {shapes}; got {list(floats.shape)}")
        _check_size(floats, name)
        batches.append(floats if floats.ndim == 3 else floats[None])
    trees = functions.link(batches, names, method)
    return [
        functions.restore(one)(Z if np.ndim(one) == 3 else Z[0]) for one, Z in zip(given, trees, strict=True)
    ]


def _check_size(floats: Any, name: str) -> None:
    n, d = floats.shape[-2:]
    if n < 1 or d < 1:
        raise ValueError(
            f"{name}: expected at least one point of one coordinate; got shape {list(floats.shape)}"
        )


def _check_count(points: Any, name: str, method: str) -> int:
    """Return the number of points of a problem, 0 if the shape is not known yet."""
    shape = shape_of(points)
    if len(shape) < 2:
        return 0
    at_most(max(shape), MOST, name, "points, coordinates or problems")
    if method == "ward" and shape[-1] > 1:
        at_most(shape[-2], MOST_IN_SPACE, name, "points of more than one coordinate by method 'ward'")
    return shape[-2]
