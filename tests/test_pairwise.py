"""Distances are those that linkages cluster by: exact, the same from every backend, at any scale."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform

import reprune
from reprune.clustering import room
from tests.helpers.isas import ISAS
from tests.helpers.oracles import draw_points

KINDS = ("normal", "heavy", "duplicates", "lattice", "sparse", "zeros")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n, d", [(1, 1), (2, 1), (17, 3), (70, 9), (130, 33)])
def test_backends_agree_to_the_last_bit(kind, n, d):
    points = draw_points(kind, n, d, seed=n)
    found = reprune.pairwise(points, backend="cpp")
    np.testing.assert_array_equal(found, reprune.pairwise(points, backend="reference"))
    np.testing.assert_allclose(found, squareform(pdist(points)), rtol=1e-14)
    np.testing.assert_array_equal(found, found.T)
    assert not found.diagonal().any()
    assert found.dtype == np.float64


@pytest.mark.parametrize("name", ISAS)
def test_instruction_sets_and_threads_have_no_influence(name, isa, monkeypatch):
    points = draw_points("normal", 200, 9, seed=1)
    expected = reprune.pairwise(points, backend="reference")
    isa(name)
    for threads in ("1", "3"):
        monkeypatch.setenv("REPRUNE_NUM_THREADS", threads)
        np.testing.assert_array_equal(reprune.pairwise(points), expected)


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-30, 1e30, 1e200, 1e307])
def test_squares_of_any_size(scale):
    points = draw_points("normal", 20, 4, seed=2) * scale
    found = reprune.pairwise(points)
    np.testing.assert_array_equal(found, reprune.pairwise(points, backend="reference"))
    expected = np.ldexp(squareform(pdist(np.ldexp(points, -int(np.log2(scale))))), int(np.log2(scale)))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-322)


def test_numbers_of_all_sizes_at_once():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(20, 4)) * 10.0 ** rng.integers(-300, 300, (20, 4))
    points[0, 0] = 1.5e308
    points[1, 0] = -1.5e308
    found = reprune.pairwise(points)
    np.testing.assert_array_equal(found, reprune.pairwise(points, backend="reference"))
    assert np.isinf(found[0, 1])
    assert np.isfinite(found[2:, 2:]).all()


def test_close_points_far_from_the_origin_keep_their_digits():
    points = 1e8 + np.array([[0.0], [2.0**-20], [2.0**-19]])
    np.testing.assert_array_equal(reprune.pairwise(points)[0], [0, 2.0**-20, 2.0**-19])


def test_distances_are_the_heights_of_linkage():
    points = draw_points("heavy", 30, 5, seed=4)
    assert reprune.linkage(points, "single")[0, 2] == reprune.pairwise(points)[np.triu_indices(30, 1)].min()


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_batches_lists_and_tensors(backend):
    points = draw_points("normal", 12, 3, seed=5).reshape(3, 4, 3)
    batch = reprune.pairwise(points, backend=backend)
    assert batch.shape == (3, 4, 4)
    for one, found in zip(points, batch, strict=True):
        np.testing.assert_array_equal(reprune.pairwise(one, backend=backend), found)
    ragged = reprune.pairwise([points[0], torch.from_numpy(points[1, :2])], backend=backend)
    np.testing.assert_array_equal(ragged[0], batch[0])
    assert isinstance(ragged[1], torch.Tensor)
    np.testing.assert_array_equal(ragged[1], batch[1][:2, :2])
    strided = np.asfortranarray(points.astype(np.float32))[:, ::-1, ::2]
    np.testing.assert_array_equal(
        reprune.pairwise(strided, backend=backend), reprune.pairwise(strided.copy(), backend=backend)
    )
    half = torch.from_numpy(points[0]).bfloat16()
    assert torch.equal(
        reprune.pairwise(half, backend=backend), reprune.pairwise(half.double(), backend=backend)
    )
    assert reprune.pairwise(np.empty((0, 4, 3)), backend=backend).shape == (0, 4, 4)


@pytest.mark.parametrize(
    "points, error, message",
    [
        (np.zeros(3), ValueError, r"points: expected shape \[n, d\]"),
        (np.zeros((0, 3)), ValueError, "points: expected at least one point"),
        (np.array([[1.0], [np.nan]]), ValueError, "points: expected finite numbers"),
        ([np.zeros((2, 1)), np.zeros((2, 0))], ValueError, r"points\[1\]: expected at least one point"),
        (np.array([["a"]]), TypeError, "points: expected real numbers"),
    ],
)
def test_errors(points, error, message):
    with pytest.raises(error, match=message):
        reprune.pairwise(points)


def test_no_room_is_said_before_anything_starts(monkeypatch):
    monkeypatch.setattr(room, "available", lambda: 10**9)
    with pytest.raises(MemoryError, match=r"points: all distances: expected 3.20 GB of memory; got 1.00 GB"):
        reprune.pairwise(np.zeros((20_000, 1)))
