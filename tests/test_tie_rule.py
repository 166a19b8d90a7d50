"""Among equally high merges one rule decides, the same on every backend to the last bit."""

from itertools import pairwise

import numpy as np
import pytest

import reprune
from tests.helpers import drawn, exact
from tests.helpers.isas import ISAS

METHODS = ("ward", "single", "complete", "average")
DRAWS = 30
SHAPES = [(6, 4, 1), (13, 3, 1), (24, 3, 1), (9, 3, 2), (14, 3, 4), (20, 2, 9)]


def shapes(count):
    return [(seed, SHAPES[seed % len(SHAPES)]) for seed in range(count)]


@pytest.mark.parametrize("kind", drawn.TIED)
def test_selections_of_quantised_weights(kind):
    for seed, shape in shapes(DRAWS):
        weight = drawn.draw(kind, shape, seed)
        keep = 1 + seed % (shape[0] - 1)
        ties = ("random", "norm")[seed % 2]
        one, other = (
            reprune.select_filters(weight, keep, seed=seed, ties=ties, backend=b)
            for b in ("cpp", "reference")
        )
        assert one.heights == other.heights
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.order, other.order)
        np.testing.assert_array_equal(one.gains, other.gains)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", drawn.TIED)
def test_dendrograms_of_quantised_points(kind, method):
    for seed, shape in shapes(12):
        batch = drawn.draw(kind, shape, 1000 + seed).swapaxes(0, 1)
        one, other = (reprune.linkage(batch, method, backend=b) for b in ("cpp", "reference"))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("shape", [(300, 1, 2), (400, 1, 9)])
@pytest.mark.parametrize("kind", drawn.TIED)
def test_many_quantised_points_by_lists_of_neighbours(kind, shape, isa):
    points = drawn.draw(kind, shape, 7)[:, 0]
    expected = reprune.linkage(points, backend="reference")
    for name in ISAS:
        isa(name)
        np.testing.assert_array_equal(reprune.linkage(points, backend="cpp"), expected)


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("method", ["ward", "single", "complete"])
def test_the_rule_in_exact_arithmetic(method, backend):
    """Of small whole numbers rounding decides nothing: equal heights are equal, and the rule is all."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        points = rng.integers(0, 4, size=(9, 1 + seed % 3))
        expected = exact.linkage(points, method)
        Z = reprune.linkage(points.astype(np.float32), method, backend=backend)
        assert exact.merges_of(Z) == [(a, b) for a, b, _ in expected]
        np.testing.assert_allclose(Z[:, 2] ** 2, [float(square) for _, _, square in expected], rtol=1e-14)


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("method", METHODS)
def test_pairs_far_apart_that_are_equally_near(method, backend):
    """Nothing has to be decided but the numbering of rows."""
    points = np.array([[100.0], [7], [0], [101], [51], [1], [50], [6]])
    Z = reprune.linkage(points, method, backend=backend)
    assert exact.merges_of(Z)[:4] == [(0, 3), (1, 7), (2, 5), (4, 6)]
    assert Z[:4, 2].tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_equal_points_go_one_into_the_next(backend):
    points = np.array([[3.0, 1], [5, 1], [3, 1], [3, 1], [5, 1]])
    for method in METHODS:
        Z = reprune.linkage(points, method, backend=backend)
        assert exact.merges_of(Z) == [(0, 2), (1, 4), (2, 3), (3, 4)]


@pytest.mark.parametrize("kind", drawn.TIED)
def test_no_merge_is_lower_than_those_below(kind):
    for method in METHODS:
        Z = reprune.linkage(drawn.draw(kind, (40, 1, 3), 7)[:, 0], method)
        assert all(low <= high for low, high in pairwise(Z[:, 2].tolist()))


@pytest.mark.parametrize("kind", ["int8", "ternary", "thirds", "bfloat16"])
@pytest.mark.parametrize("n, d", [(300, 1), (130, 9), (620, 3)])
def test_many_tied_points(kind, n, d):
    """Chains, rounds and, from 600 on, lists of neighbours give the reference's answer."""
    points = drawn.draw(kind, (n, 1, d), n + d)[:, 0]
    np.testing.assert_array_equal(reprune.linkage(points), reprune.linkage(points, backend="reference"))


def test_ties_of_float32_numbers_on_a_line():
    """Gaps between normal numbers of 24 bits are equal now and then."""
    weight = np.random.default_rng(1).normal(size=(400, 6, 1)).astype(np.float32)
    one, other = (reprune.select_filters(weight, 200, backend=b) for b in ("cpp", "reference"))
    assert one.height == other.height
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.order, other.order)


def answers(batch, weight):
    sel = reprune.select_filters(weight, weight.shape[0] // 2)
    return reprune.linkage(batch).tobytes(), sel.height, sel.labels.tobytes(), sel.order.tobytes()


@pytest.mark.parametrize("n, d", [(700, 4), (90, 9), (200, 1)])
def test_nothing_depends_on_what_was_done_before(n, d, isa, monkeypatch):
    """Not on other calls, threads, instruction sets or the place in a batch."""
    rng = np.random.default_rng(n)
    tied = np.clip(np.rint(rng.normal(size=(3, n, d)) * 12), -31, 31)
    weight = tied.swapaxes(0, 1).astype(np.float32)
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "1")
    expected = answers(tied, weight)
    for scale in (100.0, 1e-3, 1e200):
        reprune.linkage(rng.normal(size=(2, n, d)) * scale)
        assert answers(tied, weight) == expected
    np.testing.assert_array_equal(reprune.linkage(tied[::-1].copy())[::-1], reprune.linkage(tied))
    for threads in ("2", "3", "7"):
        monkeypatch.setenv("REPRUNE_NUM_THREADS", threads)
        assert answers(tied, weight) == expected
    for name in ("avx512", "avx2", "sse2", "plain"):
        if isa(name):
            assert answers(tied, weight) == expected


def test_points_of_one_coordinate_that_differ_in_their_last_bits():
    """Many at a few places, whose joins rounding makes lower than before, and one that may be far away."""
    for seed in range(400):
        rng = np.random.default_rng(seed)
        n, apart = int(rng.integers(12, 24)), rng.choice([0.1, 0.3, 1 / 3])
        points = np.round(rng.normal(size=(n, 1)) * rng.choice([0.3, 1])) * apart + rng.choice([0, 1 / 3])
        points *= 1 + rng.integers(-3, 4, size=points.shape) * 2.0**-52
        points[rng.integers(n)] *= rng.choice([1, 1e5, 1e12])
        one, other = (reprune.linkage(points, backend=b) for b in ("cpp", "reference"))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind, least", [("plane", 5), ("wide", 5), ("line", 1)])
def test_channels_cut_at_0_whose_rounding_joins_more_than_equal_points(kind, least):
    found = 0
    for weight, keep in drawn.cut_at_0(kind):
        heights = reprune.linkage(weight[:, 6], backend="reference")[:, 2]
        equal = reprune.linkage(weight[:, 0], backend="reference")[:, 2]
        found += (heights == 0).sum() > len(weight) - len(np.unique(weight[:, 6], axis=0))
        one, other = (reprune.select_filters(weight, keep, backend=b) for b in ("cpp", "reference"))
        assert one.height == other.height == 0 == equal[len(weight) - keep - 1]
        np.testing.assert_array_equal(one.labels, other.labels)
    assert found >= least
