"""What is right, for fuzz.py: scipy, the reference, and a replay of all merges of a batch at once."""

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

from reprune.clustering import reference


def scaled(points):
    """Points [n, d] times a power of two, so that no square overflows, and its exponent."""
    points = np.asarray(points, np.float64)
    exponent = int(np.frexp(np.abs(points).max())[1])
    return np.ldexp(points, -exponent), exponent


def allowed(heights, exponent):
    """How far scaled heights [n-1] may be off: rounding, and the step between numbers that are subnormal."""
    return 1e-12 * heights + 1e-14 * heights.max(initial=0) + np.ldexp(1.0, -1074 - exponent)


def against_scipy(points, Z, method, strict):
    """Why the tree Z of points [n, d] is not scipy's; None if it is. Of ties scipy has a rule of its own."""
    points, exponent = scaled(points)
    heights = np.ldexp(Z[:, 2], -exponent)
    expected = hierarchy.linkage(pdist(points), method)
    if not (np.diff(heights) >= 0).all():
        return "heights fall"
    off = np.abs(heights - expected[:, 2])
    if (strict or method == "single") and not (off <= allowed(expected[:, 2], exponent)).all():
        return f"a height is off by {np.nanmax(off) / expected[-1, 2]:.1e} of the largest"
    apart = np.diff(expected[:, 2], prepend=0) > 1e-9 * expected[-1, 2]
    if strict and apart.all() and not np.array_equal(Z[:, [0, 1, 3]], expected[:, [0, 1, 3]]):
        return "other merges than scipy's"
    return None


def against_reference(points, Z, method):
    """Why the tree Z is not the reference's, to the last bit."""
    expected = reference.linkage(np.asarray(points, np.float64), method)
    if not np.array_equal(Z[:, [0, 1, 3]], expected[:, [0, 1, 3]]):
        return "other merges than the reference's"
    if not np.array_equal(Z[:, 2], expected[:, 2]):
        off = np.abs(Z[:, 2] - expected[:, 2]).max() / expected[-1, 2]
        return f"a height is off by {off:.1e} of the largest from the reference's"
    return None


def unlike_greedy(batch, trees, method):
    """Problems of batch [B, n, d] whose tree joins two clusters that are not as near as any were then."""
    both = [scaled(points - points[0]) for points in batch.astype(np.float64)]
    points = np.stack([p for p, _ in both])  # [B, n, d]
    heights = np.stack([np.ldexp(Z[:, 2], -e) for Z, (_, e) in zip(trees, both, strict=True)])
    B, n, _ = points.shape
    problem = np.arange(B)
    slack = 1e-11 * np.maximum(heights.max(axis=1, initial=0), 1e-300)
    slack += [np.ldexp(1.0, -1074 - e) for _, e in both]
    row = np.full((B, 2 * n - 1), -1)  # of a cluster; -1: not there, or no more
    row[:, :n] = np.arange(n)
    size = np.ones((B, n))
    distance = np.sqrt(((points[:, :, None] - points[:, None]) ** 2).sum(axis=3))  # [B, n, n]
    distance[:, np.arange(n), np.arange(n)] = np.inf
    right = np.ones(B, bool)
    for k in range(n - 1):
        ids = np.stack([Z[k, :2] for Z in trees]).astype(int)  # [B, 2]
        i, j = row[problem, ids[:, 0]], row[problem, ids[:, 1]]
        right &= (i >= 0) & (j >= 0) & (ids[:, 0] < ids[:, 1])
        least = distance.min(axis=(1, 2))
        between = distance[problem, i, j]
        right &= (between <= least + slack) & (np.abs(heights[:, k] - between) <= slack)
        na, nb = size[problem, i][:, None], size[problem, j][:, None]
        a, b = distance[problem, i], distance[problem, j]  # [B, n]
        if method == "ward":
            centre = points[problem, i] + (nb / (na + nb)) * (points[problem, j] - points[problem, i])
            points[problem, i] = centre
            new = np.sqrt(
                2 * (na + nb) * size / (na + nb + size) * ((points - centre[:, None]) ** 2).sum(axis=2)
            )
        else:
            new = (
                {"single": np.minimum, "complete": np.maximum}[method](a, b) if method != "average" else None
            )
            new = (na * a + nb * b) / (na + nb) if new is None else new
        new = np.where(np.isinf(a) | np.isinf(b), np.inf, new)
        distance[problem, i] = distance[problem, :, i] = new
        distance[problem, j] = distance[problem, :, j] = np.inf
        size[problem, i] += size[problem, j]
        right &= np.array([Z[k, 3] for Z in trees]) == size[problem, i]
        row[problem, ids[:, 0]] = row[problem, ids[:, 1]] = -1
        row[problem, n + k] = i
    return np.flatnonzero(~right)


def canonical(labels):
    """Labels renumbered by first appearance."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse]
