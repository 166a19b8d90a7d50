from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from reprune import keep_counts
from reprune.clustering.sparsity import _rank, uniform_counts


def test_the_count_is_exact_for_every_fraction():
    for n in range(2, 2049):
        for count in range(1, n):
            assert _rank(count / n, n) == count


def test_products_of_fractions_miscount():
    wrong = sum(np.ceil(c / n * n) != c for n in range(2, 512) for c in range(1, n))
    assert wrong > 1000  # why _rank compares quotients


@given(st.integers(1, 3000), st.integers(1, 10**6), st.integers(2, 10**6))
def test_the_count_is_the_smallest_that_reaches_the_share(n, a, b):
    share = Fraction(min(a, b - 1), b)
    count = _rank(float(share), n)
    assert Fraction(count, n) >= share
    assert Fraction(count - 1, n) < share


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    seed=st.integers(0, 10**6),
    levels=st.sampled_from([3, 10, 10**6]),
    sparsity=st.floats(0.001, 0.999),
)
def test_threshold_is_the_definition(sizes, seed, levels, sparsity):
    rng = np.random.default_rng(seed)
    gammas = {str(k): rng.integers(-levels, levels, size=O) / 7 for k, O in enumerate(sizes)}
    G = np.abs(np.concatenate(list(gammas.values())))
    if len(set(G)) == 1:
        return
    threshold = min(g for g in G if (g >= G).mean() >= sparsity)  # inf{g in G : F(g) >= s}
    expected = {k: max(1, int((np.abs(g) > threshold).sum())) for k, g in gammas.items()}
    assert keep_counts(gammas, sparsity) == expected


def test_all_layers_are_counted_together():
    gammas = {"a": np.array([0.1, -0.2, 0.9]), "b": torch.tensor([0.3, 0.4, 0.5], requires_grad=True)}
    assert keep_counts(gammas, 0.5) == {"a": 1, "b": 2}
    assert keep_counts(gammas, 4 / 6) == {"a": 1, "b": 1}
    assert list(keep_counts(gammas, 0.5)) == ["a", "b"]


def test_min_keep_and_rounding():
    gammas = {"a": np.full(10, 0.1), "b": np.linspace(1, 2, 20), "c": np.full(2, 0.05)}
    assert keep_counts(gammas, 0.3) == {"a": 1, "b": 20, "c": 1}
    assert keep_counts(gammas, 0.3, min_keep=4) == {"a": 4, "b": 20, "c": 2}
    assert keep_counts(gammas, 0.6, round_to=8) == {"a": 8, "b": 16, "c": 2}
    assert keep_counts(gammas, 0.5, min_keep=9, round_to=8) == {"a": 10, "b": 16, "c": 2}
    assert uniform_counts({"a": 10, "b": 3, "c": 1}, 0.5) == {"a": 5, "b": 1, "c": 1}
    assert uniform_counts({"a": 10, "b": 64}, 0.3, min_keep=8, round_to=4) == {"a": 8, "b": 44}


@pytest.mark.parametrize("sparsity", [0, 1, -0.5, 1.5, float("nan"), float("inf")])
def test_a_sparsity_out_of_range_is_refused(sparsity):
    for call in (
        lambda: keep_counts({"a": [1.0, 2.0]}, sparsity),
        lambda: uniform_counts({"a": 2}, sparsity),
    ):
        with pytest.raises(ValueError, match="sparsity: expected a number between 0 and 1"):
            call()


@pytest.mark.parametrize(
    "gammas, error, message",
    [
        ({"a": np.ones(3), "b": -np.ones(2)}, ValueError, "all 5 are 1, .* rule='uniform'"),
        ({"a": np.zeros(4)}, ValueError, "gammas: expected different values.* rule='uniform'"),
        ({"a": np.ones(1)}, ValueError, "rule='uniform'"),
        ({"a": np.array([1, np.nan])}, ValueError, r"gammas\['a'\]: expected finite .* rule='uniform'"),
        ({}, ValueError, "gammas: expected at least one; got none; .* rule='uniform'"),
        ({"a": np.ones((2, 2))}, ValueError, r"gammas\['a'\]: expected shape \[O\]"),
        ({"a": ["x"]}, TypeError, r"gammas\['a'\]: expected real numbers"),
    ],
)
def test_errors(gammas, error, message):
    with pytest.raises(error, match=message):
        keep_counts(gammas, 0.5)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"sparsity": "half"}, TypeError, "sparsity: expected a number between 0 and 1; got 'half'"),
        ({"min_keep": 0}, ValueError, "min_keep: expected an integer >= 1; got 0"),
        ({"round_to": 2.5}, TypeError, "round_to: expected an integer >= 1; got 2.5"),
        ({"sizes": {"a": 0}}, ValueError, r"sizes\['a'\]: expected an integer >= 1; got 0"),
    ],
)
def test_uniform_errors(change, error, message):
    with pytest.raises(error, match=message):
        uniform_counts(**({"sizes": {"a": 4}, "sparsity": 0.5} | change))
