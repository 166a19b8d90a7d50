"""``scipy.cluster.hierarchy`` with a faster ``linkage``; needs scipy (``pip install "reprune[scipy]"``).

Use it as scipy's: ``from reprune import hierarchy``. :func:`linkage`, :func:`ward`, :func:`single`,
:func:`complete`, :func:`average` and :func:`fclusterdata` cluster observations by Euclidean distance, and
condensed distances, in the C++ core; every other name, argument and error is scipy's own. So is ``fcluster``,
which takes linear time, most of it for checking its argument; so is "single" on condensed distances.

The result is scipy's: the same merges in the same order, heights to rounding (1e-15 of the largest). Where
merges tie, scipy's order follows its own rounding, so ties are handed on to scipy too: values on a grid
(integers, multiples of 1/1000 or 1/1024) at once, others when two heights of the result are equal. One kind
of tie leaves no trace in the heights, and there another dendrogram can come, as right as scipy's: a cluster,
off these grids, that is equally near to two others, of which it can join but one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from . import reference
from .arrays import is_tensor
from .backend import resolve
from .linkage import link_batch, link_condensed

try:
    from scipy.cluster import hierarchy as _scipy
except ImportError as error:
    raise ImportError('reprune.hierarchy needs scipy: pip install "reprune[scipy]"') from error

__all__ = list(_scipy.__all__)

Result = npt.NDArray[np.float64]

_LARGEST = 1e150  # the squares of larger numbers overflow in scipy, which is an error there
_GRIDS = (1024.0, 1000.0)  # parts of one: binary and decimal
_TIE = 1e-12  # heights this close (relative) are equal but for rounding


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_scipy, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_scipy)})


def linkage(
    y: Any, method: str = "single", metric: Any = "euclidean", optimal_ordering: bool = False
) -> Result:
    """``scipy.cluster.hierarchy.linkage``, faster for four methods.

    Args:
        y: observations ``[n, d]``, or condensed distances ``[n (n-1) / 2]``.
        method: "single", "complete", "average", "ward"; "weighted", "centroid", "median" (scipy's code).
        metric: "euclidean", or another one that scipy knows (scipy's code).
        optimal_ordering: whether to reorder the leaves (scipy's code).

    Returns:
        ``Z [n-1, 4]`` float64.

    Raises:
        ValueError: as scipy, by scipy.
    """
    if metric == "euclidean" and not optimal_ordering:
        Z = _euclidean(y, method, (1, 2))
        if Z is not None:
            return Z
    theirs: Result = _scipy.linkage(y, method, metric, optimal_ordering)
    return theirs


def single(y: Any) -> Result:
    """:func:`linkage` by the smallest distance."""
    return linkage(y, method="single", metric="euclidean")


def complete(y: Any) -> Result:
    """:func:`linkage` by the largest distance."""
    return linkage(y, method="complete", metric="euclidean")


def average(y: Any) -> Result:
    """:func:`linkage` by the mean distance."""
    return linkage(y, method="average", metric="euclidean")


def ward(y: Any) -> Result:
    """:func:`linkage` by the growth of the variance within clusters."""
    return linkage(y, method="ward", metric="euclidean")


def fclusterdata(
    X: Any,
    t: float,
    criterion: str = "inconsistent",
    metric: Any = "euclidean",
    depth: int = 2,
    method: str = "single",
    R: Any = None,
) -> npt.NDArray[np.int32]:
    """``scipy.cluster.hierarchy.fclusterdata``: :func:`linkage` of observations ``[n, d]``, then
    ``fcluster``; labels ``[n]`` from 1, errors as scipy's."""
    Z = _euclidean(X, method, (2,)) if metric == "euclidean" else None
    labels: npt.NDArray[np.int32]
    if Z is None:
        labels = _scipy.fclusterdata(X, t, criterion, metric, depth, method, R)
    else:
        if R is None:
            R = _scipy.inconsistent(Z, d=depth)  # whatever the criterion: it checks `depth`
        labels = _scipy.fcluster(Z, t, criterion, depth, R)
    return labels


def _euclidean(y: Any, method: Any, dimensions: tuple[int, ...]) -> Result | None:
    """Our dendrogram of ``y``, or None where it might differ from what scipy says: the caller asks scipy
    then, which also knows the right error."""
    given = _numbers(y) if method in reference.METHODS else None
    if given is None or given.ndim not in dimensions:
        return None
    Z = _observations(given, method) if given.ndim == 2 else _condensed(given, method)
    if Z is None:
        return None
    heights = Z[:, 2]
    tied = (heights[1:] - heights[:-1] <= _TIE * heights[1:]).any()
    return None if tied else Z


def _observations(points: Result, method: str) -> Result | None:
    if len(points) < 2 or _on_grid(points):
        return None
    # scipy warns of a square of distances in the place of observations
    if points.shape[0] == points.shape[1] and np.isclose(np.diagonal(points), 0).all():
        return None
    Z: Result = link_batch(points[None], method, resolve("auto"), "y")[0]
    return Z


def _condensed(distances: Result, method: str) -> Result | None:
    if method == "single" or resolve("auto") != "cpp":  # scipy's minimum spanning tree is as fast
        return None
    n = (1 + math.isqrt(1 + 8 * len(distances))) // 2
    if n * (n - 1) // 2 != len(distances) or distances.min() < 0 or _on_grid(distances):
        return None
    return link_condensed(distances, method, "y")


def _numbers(y: Any) -> Result | None:
    """``y`` as a float64 array, C-contiguous, not empty, moderate numbers only; None if it is anything
    else."""
    if isinstance(y, (np.ma.MaskedArray, np.matrix)) or is_tensor(y):
        return None  # scipy may refuse these, or answer in kind
    if not isinstance(y, (np.ndarray, list, tuple)) and not hasattr(y, "__array__"):
        return None
    if hasattr(y, "__array_namespace__") and not isinstance(y, np.ndarray):
        return None
    try:
        given = np.asarray(y)
    except ValueError:
        return None
    if given.dtype.kind not in "biuf" or given.size == 0:
        return None
    numbers = np.ascontiguousarray(given, dtype=np.float64)
    # false for NaN too
    moderate = numbers.max() < _LARGEST and numbers.min() > -_LARGEST
    return numbers if moderate else None


def _on_grid(points: Result) -> bool:
    largest = np.abs(points).max()
    # smaller and larger numbers are multiples to within rounding, whatever they are; and most data show in
    # the first rows that they lie on no grid
    return any(
        1 <= largest * grid <= 1e12 and _multiples(points[:8], grid) and _multiples(points[8:], grid)
        for grid in _GRIDS
    )


def _multiples(points: Result, grid: float) -> bool:
    scaled = points * grid
    return bool((np.abs(scaled - np.rint(scaled)) < 1e-3).all())
