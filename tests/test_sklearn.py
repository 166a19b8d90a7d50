"""`reprune.sklearn` against scikit-learn, and scikit-learn's own tests on our class."""

import warnings

import numpy as np
import pytest
import sklearn
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.cluster import AgglomerativeClustering as Theirs
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import kneighbors_graph
from sklearn.utils.estimator_checks import check_estimator

import reprune.sklearn
from reprune.sklearn import AgglomerativeClustering as Ours
from tests.helpers import foreign, oracles, strategies

NORMAL = np.random.default_rng(0).normal(size=(80, 6))


def public(model):
    return {name for name in vars(model) if not name.startswith("_")}


def assert_equal(X, **parameters):
    """Fits both, compares every public attribute; the fitted object of ours."""
    mine, original = Ours(**parameters).fit(X), Theirs(**parameters).fit(X)
    assert public(mine) == public(original)
    for name in ("children_", "labels_"):
        got, expected = getattr(mine, name), getattr(original, name)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    for name in ("n_leaves_", "n_connected_components_", "n_clusters_", "n_features_in_"):
        assert getattr(mine, name) == getattr(original, name), name
    if hasattr(original, "distances_"):
        np.testing.assert_allclose(mine.distances_, original.distances_, rtol=1e-12)
    return mine


@pytest.fixture
def fits(monkeypatch):
    """The methods of the trees that ours made."""
    done = []
    tree = reprune.sklearn._tree
    monkeypatch.setattr(reprune.sklearn, "_tree", lambda X, method: (done.append(method), tree(X, method))[1])
    return done


@pytest.mark.parametrize("linkage", oracles.METHODS)
@settings(max_examples=20, deadline=None)
@given(X=strategies.points(strategies.UNTIED, n=80, d=80), data=st.data())
def test_fit_is_scikit_learns(linkage, X, data):
    clusters = data.draw(st.integers(1, len(X)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a square of observations may look like distances
        assert_equal(X, linkage=linkage, n_clusters=clusters, compute_distances=True)


@pytest.mark.parametrize("linkage", ["ward", "complete", "average"])
@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"n_clusters": 11, "compute_full_tree": False},
        {"n_clusters": 11, "compute_distances": True},
        {"n_clusters": None, "distance_threshold": 2.0},
        {"n_clusters": None, "distance_threshold": 0},
    ],
    ids=str,
)
def test_fits_use_the_core_where_it_can(fits, linkage, parameters):
    for X in (NORMAL, NORMAL.astype(np.float32), np.asfortranarray(NORMAL), NORMAL.tolist()):
        assert_equal(X, linkage=linkage, **parameters)
    assert fits == [linkage] * 4


@pytest.mark.parametrize("linkage", ["ward", "complete", "average"])
def test_threshold_is_inclusive(fits, linkage):
    pair = np.concatenate([NORMAL, NORMAL[:1]])  # one merge at height 0
    assert assert_equal(pair, linkage=linkage, n_clusters=None, distance_threshold=0).n_clusters_ == 81
    height = Ours(linkage=linkage, compute_distances=True).fit(NORMAL).distances_[-4]
    assert Ours(None, linkage=linkage, distance_threshold=height).fit(NORMAL).n_clusters_ == 5
    assert fits == [linkage] * 3


@pytest.mark.parametrize("linkage", oracles.METHODS)
def test_clusters_of_tied_data_are_scikit_learns(linkage):
    integers = np.random.default_rng(1).integers(0, 4, size=(50, 2))
    assert_equal(integers, linkage=linkage, n_clusters=7)
    assert_equal(np.concatenate([NORMAL, NORMAL[:9]]), linkage=linkage, n_clusters=7)


@pytest.mark.parametrize(
    "parameters",
    [
        {"linkage": "single"},
        {"linkage": "average", "metric": "manhattan"},
        {"linkage": "average", "metric": "l2"},
        {"linkage": "complete", "metric": "cosine"},
        {"linkage": "average", "metric": pairwise_distances},
        {"linkage": "ward", "connectivity": lambda X: kneighbors_graph(X, 10, include_self=False)},
    ],
    ids=["single", "manhattan", "l2", "cosine", "callable", "connectivity"],
)
def test_the_rest_is_handed_on(fits, parameters):
    assert_equal(NORMAL, n_clusters=4, **parameters)
    assert fits == []


def test_precomputed_is_handed_on(fits):
    assert_equal(pairwise_distances(NORMAL), linkage="average", metric="precomputed")
    assert fits == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_clusters": 81},
        {"n_clusters": 0},
        {"n_clusters": None},
        {"n_clusters": 2, "distance_threshold": 1.0},
        {"n_clusters": None, "distance_threshold": 1.0, "compute_full_tree": False},
        {"metric": "manhattan"},
        {"linkage": "nonsense"},
    ],
    ids=str,
)
def test_errors_are_scikit_learns(parameters):
    with pytest.raises(ValueError) as expected:  # noqa: PT011
        Theirs(**parameters).fit(NORMAL)
    with pytest.raises(type(expected.value)) as got:
        Ours(**parameters).fit(NORMAL)
    assert str(got.value) == str(expected.value)


def test_memory_keeps_the_tree(tmp_path):
    memory = str(tmp_path / "cache")
    first = Ours(memory=memory, n_clusters=3).fit(NORMAL)
    assert list((tmp_path / "cache").rglob("*.pkl"))
    second = Ours(memory=memory, n_clusters=9).fit(NORMAL)
    np.testing.assert_array_equal(first.children_, second.children_)
    assert second.labels_.max() == 8


def test_is_an_estimator():
    model = Ours(n_clusters=4, linkage="average")
    assert isinstance(model, Theirs)
    assert clone(model).get_params() == model.get_params() == Theirs(4, linkage="average").get_params()
    assert repr(model) == repr(Theirs(n_clusters=4, linkage="average"))
    np.testing.assert_array_equal(model.fit_predict(NORMAL), model.labels_)


@pytest.mark.filterwarnings("ignore")
def test_check_estimator_as_for_scikit_learns_own():
    pytest.importorskip("sklearn", "1.6")  # since then it returns what it found
    results = [check_estimator(cls(), on_fail=None) for cls in (Ours, Theirs)]
    mine, original = ([(check["check_name"], check["status"]) for check in result] for result in results)
    assert len(mine) >= 30
    assert mine == original
    assert {status for _, status in mine} <= {"passed", "skipped"}


@pytest.mark.xdist_group(foreign.one_process)
def test_scikit_learns_own_tests_pass():
    counts = foreign.run()["patch_sklearn"]
    assert counts["passed"] >= (72 if sklearn.__version__.startswith("1.9.") else 50)
    assert counts["patched"] >= 80
    assert counts["core"] >= 15
