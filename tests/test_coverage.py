import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

import reprune
from tests.helpers import oracles
from tests.helpers.isas import ISAS

BACKENDS = ("reference", "cpp")


@settings(max_examples=60, deadline=None)
@given(
    O=st.integers(1, 40),
    I=st.integers(0, 12),
    clusters=st.integers(1, 40),
    seed=st.integers(-(2**63), 2**64),
    ties=st.sampled_from(["random", "norm"]),
)
def test_every_pick_is_a_maximum_and_backends_agree(O, I, clusters, seed, ties):
    labels = oracles.draw_labels(O, I, clusters, seed % 2**63)
    norms = np.random.default_rng(seed % 2**63).integers(3, size=O) / 7 if ties == "norm" else None
    order, gains = reprune.max_coverage(
        labels, O, seed, ties=ties, norms=norms, name="a", backend="reference"
    )
    oracles.assert_greedy_cover(labels, order, gains)
    again = reprune.max_coverage(labels, O, seed, ties=ties, norms=norms, name="a", backend="cpp")
    np.testing.assert_array_equal(again, (order, gains))


@pytest.mark.parametrize(
    "O, I, clusters", [(300, 64, 150), (257, 300, 20), (64, 3, 2), (600, 70, 599), (900, 33, 7)]
)
def test_larger_tables(O, I, clusters):
    labels = oracles.draw_labels(O, I, clusters, seed=O)
    results = [reprune.max_coverage(labels, O // 2, 3, backend=b) for b in BACKENDS]
    np.testing.assert_array_equal(*results)
    assert results[0][0].dtype == results[0][1].dtype == np.int64


def test_few_of_a_table_that_is_too_large_to_be_compared():
    labels = oracles.draw_labels(400, 42_000, 90, seed=2)
    results = [reprune.max_coverage(labels, 4, 3, backend=b) for b in BACKENDS]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("O", [90, 509, 600])
def test_pairs_and_filters_that_are_alone(isa, name, O):
    rng = np.random.default_rng(O)
    labels = np.stack([rng.permutation(O) // size for size in (1, 2, 2, 3, O)] * 9, axis=1).astype(np.int32)
    expected = reprune.max_coverage(labels, O // 2, backend="reference")
    assert isa(name)
    np.testing.assert_array_equal(reprune.max_coverage(labels, O // 2), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("keep", [1, 3])
def test_ties_are_uniform_over_seeds(backend, keep):
    labels = np.zeros((6, 2), np.int32)  # every filter covers the same: all picks but the first have gain 0
    seeds = 3000 if backend == "cpp" else 600
    orders = [reprune.max_coverage(labels, keep, s, backend=backend)[0] for s in range(seeds)]
    counts = np.bincount([o[-1] for o in orders], minlength=6)
    assert oracles.chi_square(counts) < chi2.isf(1e-3, 5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_norm_breaks_ties_and_the_hash_those_of_equal_norm(backend):
    labels = np.array([[0, 0], [0, 0], [1, 1], [1, 1], [1, 0]])
    norms = [1.0, 1.5, 2.0, 2.0, 9.0]

    def orders(**how):
        return {
            tuple(reprune.max_coverage(labels, 5, s, backend=backend, **how)[0].tolist()) for s in range(50)
        }

    # after 4 all others gain 1; whichever of 2 and 3 comes next leaves nothing to the other
    found = orders(ties="norm", norms=norms)
    assert found == {(4, 2, 1, 3, 0), (4, 3, 1, 2, 0)}
    assert len(orders()) > 2


def test_names_tell_layers_apart():
    labels = np.zeros((100, 2), np.int32)
    orders = {
        tuple(reprune.max_coverage(labels, 9, 0, name=n)[0]) for n in ("", "a", "b", "layer1", "layer2")
    }
    assert len(orders) == 5


@pytest.mark.parametrize("backend", BACKENDS)
def test_gains_of_an_example(backend):
    labels = np.array([[0, 0, 0], [0, 1, 1], [1, 1, 1], [1, 1, 2]])
    order, gains = reprune.max_coverage(labels, 4, backend=backend)
    assert gains.tolist()[0] == 3
    assert gains.sum() == 7
    oracles.assert_greedy_cover(labels, order, gains)


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, np.uint64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_dtypes_and_large_labels(dtype, backend):
    labels = oracles.draw_labels(30, 8, 10, seed=1)
    expected = reprune.max_coverage(labels, 20, backend=backend)
    np.testing.assert_array_equal(reprune.max_coverage(labels.astype(dtype), 20, backend=backend), expected)
    sparse = (labels.astype(np.int64) * 1_000_003)[:, ::-1][:, ::-1]
    np.testing.assert_array_equal(reprune.max_coverage(sparse, 20, backend=backend), expected)


def test_torch_in_torch_out():
    labels = oracles.draw_labels(30, 8, 10, seed=1)
    order, gains = reprune.max_coverage(torch.from_numpy(labels), 20)
    assert isinstance(order, torch.Tensor)
    assert order.dtype == gains.dtype == torch.int64
    np.testing.assert_array_equal(order.numpy(), reprune.max_coverage(labels, 20)[0])


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"labels": np.zeros(3, int)}, ValueError, r"labels: expected integers \[O, I\]"),
        ({"labels": np.zeros((3, 2))}, ValueError, "labels: expected integers .* float64"),
        ({"labels": np.zeros((0, 2), int)}, ValueError, "labels: expected integers"),
        ({"labels": np.full((3, 2), -1)}, ValueError, "labels: expected labels from 0"),
        ({"labels": np.full((3, 2), 2**31)}, ValueError, "labels: expected labels from 0"),
        ({"keep": 0}, ValueError, "keep: expected an integer from 1 to 4; got 0"),
        ({"keep": 5}, ValueError, "keep: expected an integer from 1 to 4; got 5"),
        ({"keep": 2.0}, TypeError, "keep: expected an integer from 1 to 4; got 2.0"),
        ({"keep": True}, TypeError, "keep: expected an integer"),
        ({"seed": 0.5}, TypeError, "seed: expected an integer; got 0.5"),
        ({"ties": "first"}, ValueError, "ties: expected one of random, norm; got 'first'"),
        ({"ties": "norm"}, ValueError, "norms: expected with ties='norm'"),
        ({"norms": np.ones(4)}, ValueError, "norms: expected with ties='norm'"),
        ({"ties": "norm", "norms": np.ones(3)}, ValueError, r"norms: expected one number per filter \[4\]"),
        ({"ties": "norm", "norms": [1, 2, 3, np.nan]}, ValueError, "norms: expected finite"),
    ],
)
def test_errors(change, error, message):
    given = {"labels": np.zeros((4, 2), int), "keep": 2} | change
    with pytest.raises(error, match=message):
        reprune.max_coverage(**given)
