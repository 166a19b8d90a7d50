"""The drop-ins on data where rounding decides: scipy's and scikit-learn's own trees, whatever the numbers."""

import warnings

import numpy as np
import pytest
from scipy.cluster import hierarchy as theirs
from scipy.spatial.distance import pdist
from sklearn.cluster import AgglomerativeClustering as Theirs

from reprune import hierarchy as ours
from reprune.sklearn import AgglomerativeClustering as Ours

METHODS = ("ward", "complete", "average", "single")
NORMAL = np.random.default_rng(0).normal(size=(60, 5))


def standardised(rng, n, d):
    whole = rng.integers(0, 6, size=(n, d)) + np.eye(n, d)
    return (whole - whole.mean(0)) / whole.std(0)


def polygon(rng, n, d):
    """All sides are of one length, and so are all diagonals over as many corners."""
    angle = 2 * np.pi * np.arange(n) / n + rng.random()
    return np.stack([np.cos(angle), np.sin(angle), *np.zeros((d, n))], axis=1) * np.pi


def mirrored(rng, n, d):
    half = rng.normal(size=(n // 2 + 1, d))
    return np.concatenate([half, -half])[:n]


def shifted(rng, n, d):
    """Squares of one size and orientation, anywhere."""
    return (rng.normal(size=(n // 4 + 1, 1, d)) + rng.integers(0, 2, size=(4, d)) / 3).reshape(-1, d)[:n]


KINDS = {
    "standardised integers": standardised,
    "thirds": lambda rng, n, d: rng.integers(0, 20, size=(n, d)) / 3,
    "logarithms of counts": lambda rng, n, d: np.log1p(rng.integers(0, 6, size=(n, d))),
    "roots": lambda rng, n, d: np.sqrt(rng.integers(0, 20, size=(n, d))),
    "float32": lambda rng, n, d: (rng.integers(0, 30, size=(n, d)) * np.float32(0.1)).astype(np.float32),
    "ranks": lambda rng, n, d: np.stack([rng.permutation(n) / n for _ in range(d)], axis=1),
    "angles": lambda rng, n, d: np.exp(2j * np.pi * rng.integers(0, 7, size=(n, d)) / 7).view(float),
    "polygon": polygon,
    "simplex": lambda rng, n, d: np.eye(n) / 3,
    "mirrored": mirrored,
    "shifted": shifted,
    "offset": lambda rng, n, d: 7.7 + rng.integers(0, 20, size=(n, d)) * 1e-6 / 3,
    "tight": lambda rng, n, d: (
        rng.normal(size=(3, d))[rng.integers(3, size=n)] + rng.integers(0, 9, (n, d)) * 1e-9
    ),
}


def assert_same(Z, Y):
    np.testing.assert_array_equal(Z[:, [0, 1, 3]], Y[:, [0, 1, 3]])
    np.testing.assert_allclose(Z[:, 2], Y[:, 2], rtol=1e-9, atol=1e-14 * Y[-1, 2])


def draws(kind, count):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        n, d = int(rng.integers(4, 50)), int(rng.choice([1, 2, 3, 9]))
        yield KINDS[kind](rng, n, d)


@pytest.mark.filterwarnings("ignore::scipy.cluster.hierarchy.ClusterWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_trees_are_scipys(kind):
    for points in draws(kind, 25):
        for method in METHODS:
            assert_same(ours.linkage(points, method), theirs.linkage(points, method))
            assert_same(ours.linkage(pdist(points), method), theirs.linkage(pdist(points), method))


@pytest.mark.parametrize("method", ["ward", "complete", "average"])
def test_trees_of_many_points_are_scipys(method):
    """So many that lists of neighbours are kept, and dense enough to be met by them."""
    rng = np.random.default_rng(3)
    points = rng.normal(size=(900, 3))
    points[500] = points[200] + points[700] - points[300]  # two pairs of points equally far apart
    assert_same(ours.linkage(points, method), theirs.linkage(points, method))
    thirds = rng.integers(0, 200, size=(900, 3)) / 3
    assert_same(ours.linkage(thirds, method), theirs.linkage(thirds, method))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("linkage", METHODS)
def test_labels_are_scikit_learns(linkage):
    for kind in KINDS:
        for points in draws(kind, 2):
            how = {"n_clusters": 3, "linkage": linkage, "compute_distances": True}
            fits = [cls(**how).fit(points) for cls in (Ours, Theirs)]
            for name in ("children_", "labels_"):
                np.testing.assert_array_equal(*(getattr(fit, name) for fit in fits))
            np.testing.assert_allclose(*(fit.distances_ for fit in fits), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_a_threshold_at_a_height_cuts_on_scipys_side(method):
    Y = theirs.linkage(NORMAL, method)
    steps = np.arange(3, 59, 8)
    for t in [*Y[steps, 2], *np.nextafter(Y[steps, 2], 0), *np.nextafter(Y[steps, 2], 9)]:
        labels = ours.fclusterdata(NORMAL, t, "distance", method=method)
        np.testing.assert_array_equal(labels, theirs.fclusterdata(NORMAL, t, "distance", method=method))
        fits = [cls(None, linkage=method, distance_threshold=t).fit(NORMAL) for cls in (Ours, Theirs)]
        if t not in ours.linkage(NORMAL, method)[:, 2]:  # such a one applies to our own tree
            assert fits[0].n_clusters_ == fits[1].n_clusters_
    t = theirs.inconsistent(Y)[40, 3]  # the root of one half, of every other merge
    labels = ours.fclusterdata(NORMAL, t, method=method)
    np.testing.assert_array_equal(labels, theirs.fclusterdata(NORMAL, t, method=method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-154, 1e-131, 1e-129, 1.0, 1e129, 1e131, 1e149])
def test_trees_of_huge_and_tiny_numbers_are_scipys(method, scale):
    for points in (NORMAL[:20] * scale, KINDS["thirds"](np.random.default_rng(1), 20, 2) * scale):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert_same(ours.linkage(points, method), theirs.linkage(points, method))


@pytest.mark.parametrize("method", METHODS)
def test_trees_of_numbers_of_every_size_are_scipys(method):
    """Where squares vanish, many distances are zero."""
    for seed in range(30):
        rng = np.random.default_rng(seed)
        points = 10.0 ** rng.integers(-170, 0, size=(12, 2)) * rng.integers(0, 3, size=(12, 2))
        assert_same(ours.linkage(points, method), theirs.linkage(points, method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "points",
    [
        [[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]],
        [[0.1], [0.1]],
        np.zeros((5, 2)),
        np.ones((2, 3)) / 3,
        np.concatenate([NORMAL[:9], NORMAL[:1]]),
        np.concatenate([NORMAL[:9], NORMAL[:2]]),
        [[0.0], [0.1], [0.3], [0.6]],
    ],
    ids=["two", "two equal", "zeros", "two equal thirds", "one copy", "two copies", "growing gaps"],
)
def test_trees_of_few_points_are_scipys(method, points):
    assert_same(ours.linkage(points, method), theirs.linkage(points, method))


@pytest.mark.parametrize("method", METHODS)
def test_where_rounding_decides_nothing_the_core_does_it(method, monkeypatch):
    expected = [theirs.linkage(x, method) for x in (NORMAL, NORMAL[:, :1], pdist(NORMAL))]
    monkeypatch.delattr(ours._scipy, "linkage")
    assert_same(ours.linkage(NORMAL, method), expected[0])
    assert_same(ours.linkage(NORMAL[:, :1], method), expected[1])
    if method != "single":
        assert_same(ours.linkage(pdist(NORMAL), method), expected[2])
