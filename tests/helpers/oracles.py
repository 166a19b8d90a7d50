"""Independent judges of a clustering: scipy, the definitions, and a replay of the merges."""

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

METHODS = ("ward", "single", "complete", "average")


def canonical(labels):
    """Labels renumbered by first appearance, so that equal partitions are equal arrays."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse]


def assert_same_dendrogram(Z, points, method, rtol=1e-12):
    """Heights and the partitions at every cut are scipy's."""
    points = np.asarray(points, np.float64)
    expected = hierarchy.linkage(pdist(points), method)
    floor = 1e-14 * expected[-1, 2]  # of points that differ only by rounding
    np.testing.assert_allclose(Z[:, 2], expected[:, 2], rtol=rtol, atol=floor)
    assert hierarchy.is_valid_linkage(Z)
    heights = np.concatenate([[0.0], expected[:, 2]])
    gaps = np.flatnonzero(np.diff(heights) > 1e-9 * heights[-1])
    for cut in (heights[gaps] + heights[gaps + 1]) / 2:
        ours, theirs = (hierarchy.fcluster(tree, cut, "distance") for tree in (Z, expected))
        assert same_partition(ours, theirs)


def same_partition(a, b):
    """Do labels from 1 without gaps, as of fcluster, differ in their numbers only?"""
    name = np.zeros(a.max() + 1, b.dtype)
    name[a] = b
    return a.max() == b.max() and bool((name[a] == b).all())


def cluster_distance(a, b, method):
    """The definition, for point sets a [m, d] and b [n, d]."""
    if method == "ward":
        weight = 2 * len(a) * len(b) / (len(a) + len(b))
        return np.sqrt(weight) * np.linalg.norm(a.mean(axis=0) - b.mean(axis=0))
    pairs = np.linalg.norm(a[:, None] - b[None], axis=2)
    return {"single": pairs.min, "complete": pairs.max, "average": pairs.mean}[method]()


def assert_greedy_run(Z, points, method):
    """Replays the merges: each joins two clusters that are, by the definition, as near as any two then."""
    points = np.asarray(points, np.float64)
    clusters = {i: [i] for i in range(len(points))}
    for k, (a, b, height, size) in enumerate(Z):
        distances = {
            (p, q): cluster_distance(points[clusters[p]], points[clusters[q]], method)
            for p in clusters
            for q in clusters
            if p < q
        }
        assert a < b
        np.testing.assert_allclose(height, distances[a, b], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(distances[a, b], min(distances.values()), rtol=1e-9, atol=1e-12)
        clusters[len(points) + k] = clusters.pop(a) + clusters.pop(b)
        assert size == len(clusters[len(points) + k])


def gains_of(labels, picked):
    """What each filter would newly cover after `picked`, counted one kernel at a time."""
    O, I = labels.shape
    covered = {(j, labels[i, j]) for i in picked for j in range(I)}
    return np.array([sum((j, labels[i, j]) not in covered for j in range(I)) for i in range(O)])


def assert_greedy_cover(labels, order, gains):
    """Every pick is new and its gain the largest there was."""
    assert len(set(order.tolist())) == len(order)
    for step, (pick, gain) in enumerate(zip(order, gains, strict=True)):
        all_gains = gains_of(labels, order[:step])
        left = np.setdiff1d(np.arange(len(labels)), order[:step])
        assert gain == all_gains[pick] == all_gains[left].max()


def chi_square(counts):
    """Pearson's statistic against the uniform distribution."""
    expected = sum(counts) / len(counts)
    return sum((c - expected) ** 2 / expected for c in counts)


def draw_labels(O, I, clusters, seed):
    """Labels [O, I] of so many clusters at most."""
    return np.random.default_rng(seed).integers(clusters, size=(O, I)).astype(np.int32)


def draw_points(kind, n, d, seed):
    """Test data by name."""
    rng = np.random.default_rng(seed)
    if kind == "normal":
        return rng.normal(size=(n, d))
    if kind == "heavy":
        return rng.standard_t(1.5, size=(n, d))
    if kind == "duplicates":
        return rng.normal(size=(max(1, n // 3), d))[rng.integers(max(1, n // 3), size=n)]
    if kind == "lattice":
        return rng.integers(3, size=(n, d)).astype(float)
    if kind == "sparse":
        return rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.1)
    if kind == "zeros":
        return np.zeros((n, d))
    raise AssertionError(kind)
