"""`reprune.hierarchy` against `scipy.cluster.hierarchy`, and scipy's own tests on our functions."""

import inspect
import warnings

import numpy as np
import pytest
import scipy
import torch
from hypothesis import given, settings
from scipy.cluster import hierarchy as theirs
from scipy.spatial.distance import pdist

from reprune import hierarchy as ours
from tests.helpers import foreign, oracles, strategies
from tests.helpers.imports import found, one_process

NAMES = ("linkage", "single", "complete", "average", "ward", "fcluster", "fclusterdata")
METHODS = oracles.METHODS
SCIPYS_LINKAGE = theirs.linkage  # also where it is refused
NORMAL = np.random.default_rng(0).normal(size=(60, 5))


def assert_equal(Z, Y):
    assert Z.dtype == Y.dtype == np.float64
    np.testing.assert_array_equal(Z[:, [0, 1, 3]], Y[:, [0, 1, 3]])
    np.testing.assert_allclose(Z[:, 2], Y[:, 2], rtol=1e-13, atol=1e-14 * Y[:, 2].max())


@pytest.fixture
def no_scipy(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("handed on to scipy")

    monkeypatch.setattr(ours._scipy, "linkage", refuse)
    monkeypatch.setattr(ours._scipy, "fclusterdata", refuse)


@pytest.fixture
def only_scipy(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("not handed on to scipy")

    monkeypatch.setattr(ours, "link_if_unique", refuse)


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40, deadline=None)
@given(points=strategies.points(strategies.UNTIED, n=80, d=80))
def test_linkage_is_scipys(method, points):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", theirs.ClusterWarning)
        assert_equal(ours.linkage(points, method), theirs.linkage(points, method))


@pytest.mark.usefixtures("no_scipy")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x.astype(np.float32),
        lambda x: x.astype(np.float16).astype(np.float64) * 0.7,
        lambda x: x[::-1, ::2],
        lambda x: np.asfortranarray(x),
        lambda x: x.tolist(),
        lambda x: x + 1e6,
        lambda x: x * 1e-100,
        lambda x: x * 1e100,
    ],
    ids=["float64", "float32", "scaled", "strided", "fortran", "list", "offset", "tiny", "large"],
)
def test_the_core_computes_the_tree(method, change):
    points = change(NORMAL)
    if isinstance(points, np.ndarray):
        before = points.copy()
    Z = ours.linkage(points, method)
    Y = SCIPYS_LINKAGE(points, method)
    np.testing.assert_array_equal(Z[:, [0, 1, 3]], Y[:, [0, 1, 3]])
    np.testing.assert_allclose(Z[:, 2], Y[:, 2], rtol=1e-9)
    assert_equal(getattr(ours, method)(points), Z)
    if isinstance(points, np.ndarray):
        np.testing.assert_array_equal(points, before)


@pytest.mark.usefixtures("no_scipy")
@pytest.mark.parametrize("method", ["ward", "complete", "average"])
@pytest.mark.parametrize("kind", ["euclidean", "any", "skewed", "float32", "list"])
@pytest.mark.parametrize("n", [2, 3, 60])
def test_the_core_takes_distances(method, kind, n):
    numbers = np.random.default_rng(n).random(n * (n - 1) // 2)
    y = {
        "euclidean": pdist(NORMAL[:n]),
        "any": numbers,
        "skewed": numbers**9,
        "float32": numbers.astype(np.float32),
        "list": numbers.tolist(),
    }[kind]
    before = np.array(y)
    assert_equal(ours.linkage(y, method), SCIPYS_LINKAGE(y, method))
    np.testing.assert_array_equal(y, before)


@pytest.mark.parametrize("method", METHODS)
def test_the_backend_can_be_named(method, monkeypatch):
    monkeypatch.setenv("REPRUNE_BACKEND", "reference")
    for y in (NORMAL, pdist(NORMAL)):
        assert_equal(ours.linkage(y, method), theirs.linkage(y, method))


@pytest.mark.parametrize(
    "wrap",
    [
        torch.from_numpy,
        np.asmatrix,
        np.ma.asarray,
        lambda x: pytest.importorskip("pandas").DataFrame(x),
    ],
    ids=["torch", "matrix", "masked", "pandas"],
)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_other_arrays_are_taken_as_scipy_takes_them(wrap):
    Z, Y = ours.linkage(wrap(NORMAL), "average"), theirs.linkage(wrap(NORMAL), "average")
    assert type(Z) is type(Y)
    assert_equal(Z, Y)


@pytest.mark.usefixtures("only_scipy")
@pytest.mark.parametrize(
    "arguments",
    [
        (NORMAL, "weighted"),
        (NORMAL, "centroid"),
        (NORMAL, "median"),
        (NORMAL, "average", "cityblock"),
        (NORMAL, "complete", lambda a, b: abs(a - b).max()),
        (NORMAL, "ward", "euclidean", True),
        (pdist(NORMAL), "single"),
        (pdist(NORMAL), "weighted"),
        (pdist(NORMAL) - 1, "ward"),
        (NORMAL * 1e140, "ward"),
        (NORMAL * 1e-140, "single"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else None,
)
def test_the_rest_is_handed_on(arguments):
    np.testing.assert_array_equal(ours.linkage(*arguments), theirs.linkage(*arguments))


@pytest.mark.parametrize("method", METHODS)
def test_equal_heights_are_handed_on(method):
    points = np.concatenate([NORMAL, NORMAL[:7]])
    np.testing.assert_array_equal(ours.linkage(points, method), theirs.linkage(points, method))


NAN, INFINITE = NORMAL.copy(), NORMAL.copy()
NAN[3, 2], INFINITE[3, 2] = np.nan, np.inf


@pytest.mark.parametrize("method", [*METHODS, "weighted", "nonsense", None])
@pytest.mark.parametrize(
    "y",
    [NAN, INFINITE, NORMAL * 1e200, np.empty((0, 3)), NORMAL[:1], np.empty(0), np.ones(4), NORMAL[None], "x"],
    ids=["NaN", "infinite", "overflow", "empty", "one", "no distance", "no triangle", "batch", "text"],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_errors_are_scipys(y, method):
    with pytest.raises(Exception) as expected:  # noqa: PT011
        theirs.linkage(y, method)
    with pytest.raises(type(expected.value)) as got:
        ours.linkage(y, method)
    assert str(got.value) == str(expected.value)


def test_square_of_distances_warns():
    square = np.array([[0, 1.23456], [1.23456, 0]])
    with pytest.warns(theirs.ClusterWarning):
        Z = ours.linkage(square)
    with pytest.warns(theirs.ClusterWarning):
        assert_equal(Z, theirs.linkage(square))


@pytest.mark.parametrize("method", ["single", "ward", "median"])
@pytest.mark.parametrize("criterion,t", [("inconsistent", 0.8), ("distance", 1.5), ("maxclust", 7)])
def test_fclusterdata_is_scipys(method, criterion, t):
    for more in ({}, {"depth": 3}, {"metric": "cityblock"}):
        arguments = {"criterion": criterion, "method": method, **more}
        labels = ours.fclusterdata(NORMAL, t, **arguments)
        expected = theirs.fclusterdata(NORMAL, t, **arguments)
        assert labels.dtype == expected.dtype
        np.testing.assert_array_equal(labels, expected)


@pytest.mark.usefixtures("no_scipy")
def test_fclusterdata_is_done_by_the_core():
    assert ours.fclusterdata(NORMAL, 7, "maxclust", method="ward").max() == 7


@pytest.mark.parametrize("X,depth", [(NORMAL, 2.5), (NORMAL, -1), (NORMAL[0], 2), (NAN, 2)])
def test_fclusterdata_errors_are_scipys(X, depth):
    with pytest.raises((TypeError, ValueError)) as expected:
        theirs.fclusterdata(X, 1.0, "distance", depth=depth)
    with pytest.raises(type(expected.value)) as got:
        ours.fclusterdata(X, 1.0, "distance", depth=depth)
    assert str(got.value) == str(expected.value)


def test_the_module_is_scipys():
    assert set(ours.__all__) == set(theirs.__all__)
    assert set(dir(theirs)) <= set(dir(ours))
    assert ours.dendrogram is theirs.dendrogram
    assert ours.ClusterNode is theirs.ClusterNode
    star: dict[str, object] = {}
    exec("from reprune.hierarchy import *", star)
    assert star["linkage"] is ours.linkage
    assert star["cophenet"] is theirs.cophenet
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = ours.nothing_like_it
    for name in NAMES:
        mine, original = (inspect.signature(getattr(module, name)) for module in (ours, theirs))
        assert [(p.name, p.default, p.kind) for p in mine.parameters.values()] == [
            (p.name, p.default, p.kind) for p in original.parameters.values()
        ]


@one_process
def test_import_says_what_to_install():
    for extra in ("sklearn", "scipy"):
        assert f'pip install "reprune[{extra}]"' in found()[f"no {extra}"]


@pytest.mark.xdist_group(foreign.one_process)
def test_scipys_own_tests_pass():
    counts = foreign.run()["patch_scipy"]
    assert counts["passed"] >= (163 if scipy.__version__.startswith("1.17.") else 80)
    assert counts["patched"] >= 100
    assert counts["core"] >= 30
