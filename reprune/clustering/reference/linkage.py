"""Cluster agglomeratively by the definition: merge the nearest two clusters, `n - 1` times.

This is the rule that every backend follows to the last bit. The number of a cluster is the largest number of
its points. Heights are float64, by these formulas and in this order of operations::

    ward      sqrt(2 (sum_k t_k^2 / (|A||B| (|A| + |B|)))),  t = |B| total_A - |A| total_B
    single    the smaller of the heights of either part
    complete  the larger
    average   (|A_1| height_1 + |A_2| height_2) / (|A_1| + |A_2|)

where `total` is the sum of a cluster's points in the order of its merges; for equal points it is their number
times one of them. Between single points all four are the distance. Equal points merge first, at height 0;
then the pair of the lowest height does, which rounding may make 0 as well. Among equally high pairs it is the
one whose smaller number is the smallest, then the one whose larger number is. A merge that rounding makes
lower than one of its children gets the child's height. Ward's clusters of points of one coordinate are
intervals, so there only neighbours merge.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .scale import scaled

EQUAL = -1.0
"""In the place of the height of equal points: below all heights."""
METHODS = ("ward", "single", "complete", "average")
"""The linkages, in the order the C++ core numbers them."""

Array = npt.NDArray[np.float64]


def linkage(points: Array, method: str) -> Array:
    """Return Z [n-1, 4] in scipy's form for points [n, d], n >= 1, in O(n^3)."""
    points, exponent = scaled(points)
    n = len(points)
    Z = np.empty((n - 1, 4))
    row = np.arange(n)  # [n] scipy's number of a cluster
    size = np.ones(n)
    total = points.copy()  # [n, d]
    reached = np.zeros(n)  # [n] height of a cluster's own merge
    heights = np.stack([ward(total, size, i) for i in range(n)])  # [n, n], infinite where there is no pair
    equal = np.array([(points == one).all(axis=1) for one in points])  # [n, n]
    heights[equal] = EQUAL
    np.fill_diagonal(heights, np.inf)
    alive = np.ones(n, dtype=bool)
    on_a_line = method == "ward" and points.shape[1] == 1
    left = (points > points.T).sum(axis=1) if on_a_line else np.zeros(n)  # [n] points before a cluster
    if on_a_line:
        heights[~(equal | neighbours(left, size))] = np.inf
    for k in range(n - 1):
        a, b = divmod(int(heights.argmin()), n)  # the first of the least ones: a < b, so b is the number
        alike = heights[a, b] == EQUAL
        height = max(heights[a, b], reached[a], reached[b])
        both = size[a] + size[b]
        Z[k] = *sorted((row[a], row[b])), height, both
        row[b], reached[b] = n + k, height
        alive[a] = False
        if method == "single":
            new = np.minimum(heights[a], heights[b])
        elif method == "complete":
            new = np.maximum(heights[a], heights[b])
        elif method == "average":
            new = (size[a] * heights[a] + size[b] * heights[b]) / both
        total[b] = both * points[b] if alike else total[a] + total[b]
        size[b] = both
        left[b] = min(left[a], left[b])
        if method == "ward":
            new = np.where(equal[b] & alike, EQUAL, ward(total, size, b))
        if on_a_line:
            new = np.where(equal[b] & alike | neighbours(left, size)[b], new, np.inf)
        heights[b] = heights[:, b] = np.where(alive, new, np.inf)
        heights[a] = heights[:, a] = heights[b, b] = np.inf
    with np.errstate(over="ignore"):
        Z[:, 2] = np.ldexp(Z[:, 2], exponent)
    return Z


def neighbours(left: Array, size: Array) -> npt.NDArray[np.bool_]:
    """Return which clusters on a line lie side by side, [n, n]; `left` [n]: the points before each."""
    follows = left == (left + size)[:, None]
    result: npt.NDArray[np.bool_] = follows | follows.T
    return result


def pairwise(points: Array) -> Array:
    """Return the distances [n, n] of points [n, d]: the heights of Ward's linkage between single points."""
    points, exponent = scaled(points)
    one = np.ones(len(points))
    with np.errstate(over="ignore"):
        result: Array = np.ldexp(np.stack([ward(points, one, i) for i in range(len(points))]), exponent)
    return result


def ward(total: Array, size: Array, i: int) -> Array:
    """Return the heights [n] at which cluster i would merge with every cluster.

    Each pair is scaled by its own power of two, so no square overflows or underflows.
    """
    step = size[:, None] * total[i] - size[i] * total  # [n, d]
    exponent = np.frexp(np.abs(step).max(axis=1))[1]
    squares = np.zeros(len(size))
    for coordinate in np.ldexp(step, -exponent[:, None]).T:
        squares += coordinate * coordinate
    result: Array = np.ldexp(np.sqrt(2 * (squares / (size[i] * size * (size[i] + size)))), exponent)
    return result
