"""Provide `scipy.cluster.hierarchy` with a faster `linkage`; needs scipy (`pip install "reprune[scipy]"`).

Use it as scipy's: `from reprune import hierarchy`. :func:`linkage`, :func:`ward`, :func:`single`,
:func:`complete`, :func:`average` and :func:`fclusterdata` cluster observations by Euclidean distance, and
condensed distances, in the C++ core; every other name, argument and error is scipy's own. So is `fcluster`,
which takes linear time, most of it for checking its argument; so is "single" on condensed distances.

The result is scipy's: the same merges in the same order, heights to rounding (1e-15 of the largest). Where
two merges cost the same up to rounding, scipy's order depends on its own rounding, so the core detects such
ties and leaves the problem to scipy. A threshold that equals a height up to rounding may therefore cut on its
other side, as with scipy's own heights on another machine; :func:`fclusterdata`, which knows the threshold,
leaves that to scipy too.
"""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from .arguments import is_tensor
from .clustering import reference
from .clustering.backends import resolve
from .clustering.backends.cpp import link_if_unique, points_of

try:
    from scipy.cluster import hierarchy as _scipy
except ImportError as error:
    raise ImportError('reprune.hierarchy needs scipy: pip install "reprune[scipy]"') from error

__all__ = list(_scipy.__all__)

Result = npt.NDArray[np.float64]

_MODERATE = 1e130  # between this and its reciprocal, squares neither overflow nor vanish in scipy
_CLOSE = 1e-6  # relative; a threshold this close to what it is compared with may be equal but for rounding


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_scipy, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_scipy)})


def linkage(
    y: Any, method: str = "single", metric: Any = "euclidean", optimal_ordering: bool = False
) -> Result:
    """Compute what `scipy.cluster.hierarchy.linkage` does, faster for four methods.

    Args:
        y: observations `[n, d]`, or condensed distances `[n (n-1) / 2]`.
        method: "single", "complete", "average", "ward"; "weighted", "centroid", "median" (scipy's code).
        metric: "euclidean", or another one that scipy knows (scipy's code).
        optimal_ordering: whether to reorder the leaves (scipy's code).

    Returns:
        `Z [n-1, 4]` float64.

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
    """Call :func:`linkage` with the smallest distance between clusters."""
    return linkage(y, method="single", metric="euclidean")


def complete(y: Any) -> Result:
    """Call :func:`linkage` with the largest distance between clusters."""
    return linkage(y, method="complete", metric="euclidean")


def average(y: Any) -> Result:
    """Call :func:`linkage` with the mean distance between clusters."""
    return linkage(y, method="average", metric="euclidean")


def ward(y: Any) -> Result:
    """Call :func:`linkage` with the increase in variance within clusters."""
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
    """Compute what `scipy.cluster.hierarchy.fclusterdata` does: :func:`linkage`, then `fcluster`.

    The observations are `[n, d]`, the labels `[n]` from 1, and errors are scipy's.
    """
    labels: npt.NDArray[np.int32]
    ours = metric == "euclidean" and R is None and isinstance(t, Real)
    Z = _euclidean(X, method, (2,)) if ours else None
    if Z is not None:
        found = _scipy.inconsistent(Z, d=depth)  # whatever the criterion: it checks `depth`
        compared = {"distance": Z[:, 2], "inconsistent": found[:, 3]}.get(criterion)
        if compared is None or not near(compared, t):
            labels = _scipy.fcluster(Z, t, criterion, depth, found)
            return labels
    labels = _scipy.fclusterdata(X, t, criterion, metric, depth, method, R)
    return labels


def near(numbers: Result, threshold: float) -> bool:
    """Return whether a number is so near to the threshold that rounding may decide the comparison."""
    return bool((np.abs(numbers - threshold) <= _CLOSE * np.abs(threshold)).any())


def _euclidean(y: Any, method: Any, dimensions: tuple[int, ...]) -> Result | None:
    """Return our dendrogram of `y`, or None where scipy's might differ.

    The caller then asks scipy, which also raises the right error.
    """
    if method not in reference.METHODS or resolve("auto") != "cpp":
        return None
    given = _numbers(y)
    if given is None or given.ndim not in dimensions:
        return None
    ours = _are_observations(given) if given.ndim == 2 else _are_distances(given) and method != "single"
    return link_if_unique(given, method, "y") if ours else None  # scipy's single from distances is as fast


def _are_observations(points: Result) -> bool:
    # scipy warns of a square of distances in the place of observations
    square = points.shape[0] == points.shape[1] and np.isclose(np.diagonal(points), 0).all()
    return len(points) > 1 and not square


def _are_distances(numbers: Result) -> bool:
    n = points_of(numbers)
    return n * (n - 1) // 2 == len(numbers) and bool(numbers.min() >= 0)


def _numbers(y: Any) -> Result | None:
    """Return `y` as a non-empty C-contiguous float64 array of moderate numbers, else None."""
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
    largest = max(numbers.max(), -numbers.min())  # NaN if one is
    return numbers if largest == 0 or 1 / _MODERATE < largest < _MODERATE else None
