"""Agglomerative clustering as its definition reads: merge the nearest two, ``n - 1`` times."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

METHODS = ("ward", "single", "complete", "average")
"""The linkages, in the order the C++ core numbers them."""


def linkage(points: npt.NDArray[np.float64], method: str) -> npt.NDArray[np.float64]:
    """Points [n, d], n >= 1 -> Z [n-1, 4] in scipy's form. O(n^3)."""
    points, unit = _normalized(points)
    n = len(points)
    Z = np.empty((n - 1, 4))
    number = np.arange(n)  # [n] scipy's number of the cluster in row i
    size = np.ones(n)  # [n]
    centre = points.copy()  # [n, d] its mean
    # [n, n] distance between clusters; infinite for rows that are merged away and on the diagonal
    distance = _pairwise(points)
    np.fill_diagonal(distance, np.inf)
    for k in range(n - 1):
        a, b = sorted(divmod(int(distance.argmin()), n))
        Z[k] = *sorted((number[a], number[b])), unit * distance[a, b], size[a] + size[b]
        if method == "ward":  # sqrt(2 |A||B| / (|A|+|B|)) * ||m_A - m_B||
            centre[a] += size[b] / (size[a] + size[b]) * (centre[b] - centre[a])  # exact for equal points
            weight = np.sqrt(2 * (size[a] + size[b]) * size / (size[a] + size[b] + size))
            row = weight * np.sqrt(((centre - centre[a]) ** 2).sum(axis=1))
        elif method == "single":
            row = np.minimum(distance[a], distance[b])
        elif method == "complete":
            row = np.maximum(distance[a], distance[b])
        else:  # average
            row = (size[a] * distance[a] + size[b] * distance[b]) / (size[a] + size[b])
        row[np.isinf(distance[a])] = np.inf
        distance[a] = distance[:, a] = row
        distance[b] = distance[:, b] = np.inf
        distance[a, a] = np.inf
        number[a], size[a] = n + k, size[a] + size[b]
    return Z


def _normalized(points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """The points times a power of two, so that no square overflows or vanishes, and the factor to undo it."""
    exponent = int(np.frexp(np.abs(points).max())[1])
    return np.ldexp(points, -exponent), float(np.ldexp(1.0, exponent))


def _pairwise(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Euclidean distances [n, n]; coordinate by coordinate, so no [n, n, d] is in memory."""
    squared = np.zeros((len(points), len(points)))
    for coordinate in points.T:
        squared += (coordinate[:, None] - coordinate) ** 2
    return np.sqrt(squared)
