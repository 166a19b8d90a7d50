"""The program of csrc/gpu/coverage.cu on a stand-in for a block of threads, against the reference."""

import numpy as np
import pytest
import torch

from reprune.clustering import reference
from reprune.clustering.backends import core
from reprune.kernels.coverage import MOST_FILTERS, CoverProblem, max_coverage, squared_norms

NORMS = (-1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, 1 + 2.0**-52)  # of the last two only the low words differ
KINDS = ("uniform", "one cluster", "all alone", "skewed")


def draw(rng):
    """Labels [O, I]; many ties, for there are few channels."""
    O, I = int(rng.integers(1, 41)), int(rng.integers(1, 9))
    kind = KINDS[rng.integers(len(KINDS))]
    if kind == "one cluster":
        labels = np.zeros((O, I), np.int32)
    elif kind == "all alone":
        labels = np.stack([rng.permutation(O) for _ in range(I)], axis=1)
    elif kind == "skewed":  # one large cluster, many of one or two
        labels = np.minimum(rng.geometric(0.3, size=(O, I)) - 1, O - 1)
    else:
        labels = rng.integers(int(rng.integers(1, O + 1)), size=(O, I))
    return labels.astype(np.int32)


def problem(labels, keep, name, norms=None, seed=0):
    return CoverProblem(
        torch.from_numpy(np.ascontiguousarray(labels.T)),
        int(labels.max()) + 1,
        keep,
        reference.tie_key(seed, name),
        None if norms is None else torch.from_numpy(norms),
    )


@pytest.mark.parametrize("ties", ["random", "norm"])
def test_picks_of_the_reference_on_1000_tables(ties):
    rng = np.random.default_rng(1)
    tables = [draw(rng) for _ in range(1000)]
    keeps = [int(rng.integers(1, len(labels) + 1)) for labels in tables]
    norms = [rng.choice(NORMS, len(labels)) if ties == "norm" else None for labels in tables]
    problems = [
        problem(labels, keep, str(k), norm, seed=k)
        for k, (labels, keep, norm) in enumerate(zip(tables, keeps, norms, strict=True))
    ]
    results = max_coverage(core(), problems, threads=64, order_seed=3)
    for k, (labels, keep, norm, result) in enumerate(zip(tables, keeps, norms, results, strict=True)):
        expected = reference.max_coverage(labels, keep, k, str(k), norm)
        np.testing.assert_array_equal(result.numpy(), expected)


@pytest.mark.parametrize("threads", [32, 64, 512])
@pytest.mark.parametrize("order_seed", range(3))
def test_threads_and_their_order_do_not_matter(threads, order_seed):
    rng = np.random.default_rng(0)
    labels = rng.integers(60, size=(150, 70)).astype(np.int32)
    (found,) = max_coverage(core(), [problem(labels, 150, "x")], threads, order_seed)
    np.testing.assert_array_equal(found.numpy(), reference.max_coverage(labels, 150, 0, "x", None))


def test_the_most_filters():
    assert core().most_filters_on_gpu == MOST_FILTERS
    rng = np.random.default_rng(0)
    for clusters in (1, 3, MOST_FILTERS):
        labels = rng.integers(clusters, size=(MOST_FILTERS, 3)).astype(np.int32)
        (found,) = max_coverage(core(), [problem(labels, 40, "")])
        np.testing.assert_array_equal(found.numpy(), reference.max_coverage(labels, 40, 0, "", None))


def test_the_most_fours_of_members():
    pairs = np.random.default_rng(0).permutation(MOST_FILTERS)[:, None].astype(np.int32) // 2
    (found,) = max_coverage(core(), [problem(pairs, MOST_FILTERS, "")])
    np.testing.assert_array_equal(found.numpy(), reference.max_coverage(pairs, MOST_FILTERS, 0, "", None))


@pytest.mark.parametrize("channels", [511, 512, 513, 2047, 2048, 2049])
def test_channels_that_are_read_at_once(channels):
    labels = np.arange(5)[:, None].repeat(channels, 1).astype(np.int32)  # what is alone keeps its gain
    labels[:, ::3] = np.random.default_rng(0).integers(3, size=(5, -(-channels // 3)))
    (found,) = max_coverage(core(), [problem(labels, 5, "")], threads=512)
    np.testing.assert_array_equal(found.numpy(), reference.max_coverage(labels, 5, 0, "", None))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squared_norms_to_the_last_bit(dtype):
    rng = np.random.default_rng(0)
    tables = [
        rng.normal(size=(50, 7, 9)).astype(dtype).transpose(1, 0, 2),
        rng.normal(size=(3, 50, 1)).astype(dtype),
    ]
    norms = squared_norms(core(), [torch.from_numpy(table) for table in tables])
    np.testing.assert_array_equal(norms.numpy(), reference.selection.squared_norms(tables))


@pytest.mark.parametrize("scale", [2.0**500, 2.0**1021, 1e-200, 1e-310, 5e-324, 0.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_squared_norms_of_numbers_whose_squares_overflow_or_vanish(scale, mixed):
    rng = np.random.default_rng(0)
    tables = [scale * rng.integers(-3, 4, size=(4, 20, 2)), scale * rng.normal(size=(0, 20, 9))]
    if mixed:
        tables.append(rng.normal(size=(3, 20, 1)).astype(np.float32))
    norms = squared_norms(core(), [torch.from_numpy(table) for table in tables])
    np.testing.assert_array_equal(norms.numpy(), reference.selection.squared_norms(tables))
    assert norms.isfinite().all()
