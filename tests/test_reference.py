"""The reference backend against judges that share no code with it."""

import numpy as np
import pytest
from scipy.stats import chi2

from reprune.clustering import reference
from tests.helpers import oracles


@pytest.mark.parametrize("method", oracles.METHODS)
@pytest.mark.parametrize("kind", ["normal", "heavy", "duplicates"])
@pytest.mark.parametrize("n, d", [(2, 1), (3, 2), (40, 9), (60, 1)])
def test_linkage_is_scipys(method, kind, n, d):
    points = oracles.draw_points(kind, n, d, seed=n + d)
    oracles.assert_same_dendrogram(reference.linkage(points, method), points, method)


@pytest.mark.parametrize("method", oracles.METHODS)
@pytest.mark.parametrize("kind", ["lattice", "zeros"])
def test_linkage_of_tied_points_is_a_greedy_run(method, kind):
    points = oracles.draw_points(kind, 14, 2, seed=0)
    oracles.assert_greedy_run(reference.linkage(points, method), points, method)


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e15, 1e200])
def test_linkage_of_any_scale(scale):
    points = oracles.draw_points("normal", 30, 4, seed=1)
    one, other = reference.linkage(points, "ward"), reference.linkage(points * scale, "ward")
    np.testing.assert_array_equal(one[:, :2], other[:, :2])
    np.testing.assert_allclose(other[:, 2], one[:, 2] * scale, rtol=1e-12)


def slow_mix(x):
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
    return x


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**64 - 1, -1])
@pytest.mark.parametrize("name", ["", "layer1.0.conv2", "größer"])
def test_tie_values_follow_their_definition_in_plain_integers(seed, name):
    key = 0x811C9DC5
    for byte in name.encode():
        key = ((key ^ byte) * 0x01000193) & 0xFFFFFFFF
    seed64 = seed & (2**64 - 1)
    key = slow_mix(key ^ (seed64 & 0xFFFFFFFF))
    key = slow_mix((key + (seed64 >> 32)) & 0xFFFFFFFF)
    assert reference.tie_key(seed, name) == key
    step_key = slow_mix((key + 7 * 0x9E3779B9) & 0xFFFFFFFF)
    filters = np.array([0, 1, 5, 4095])
    expected = [slow_mix(step_key ^ (int(i) * 0x85EBCA6B & 0xFFFFFFFF)) for i in filters]
    assert reference.tie_values(key, 7, filters).tolist() == expected


def test_tie_values_of_a_step_are_distinct():
    values = reference.tie_values(reference.tie_key(3, "conv"), 11, np.arange(1 << 16))
    assert len(np.unique(values)) == 1 << 16


@pytest.mark.parametrize("tied", [np.arange(8), np.array([3, 64, 65, 500, 2047])])
@pytest.mark.parametrize("vary", ["seed", "name", "step"])
def test_ties_are_uniform_and_independent(tied, vary):
    winners = []
    for k in range(4000):
        seed, name, step = (k if vary == v else 0 for v in ("seed", "name", "step"))
        values = reference.tie_values(reference.tie_key(seed, f"layer{name}"), step, tied)
        winners.append(int(values.argmin()))
    m = len(tied)
    single = np.bincount(winners, minlength=m)
    pairs = np.bincount(np.array(winners[:-1]) * m + winners[1:], minlength=m * m)
    assert oracles.chi_square(single) < chi2.isf(1e-3, m - 1)
    assert oracles.chi_square(pairs) < chi2.isf(1e-3, m * m - 1)


def test_squared_norms():
    rng = np.random.default_rng(0)
    tables = [rng.normal(size=(3, 8, 4)), rng.normal(size=(2, 8, 1)).astype(np.float32)]
    expected = [sum(float((t[:, i].astype(float) ** 2).sum()) for t in tables) for i in range(8)]
    np.testing.assert_allclose(reference.selection.squared_norms(tables), expected)
