import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

import reprune
from reprune.clustering import backends as backend
from reprune.clustering.backends.cpp import link_condensed
from tests.helpers import oracles, strategies

BACKENDS = ("reference", "cpp")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", oracles.METHODS)
@settings(max_examples=25, deadline=None)
@given(points=strategies.points(strategies.UNTIED, n=45, d=12))
def test_partitions_are_scipys_at_every_cut(method, backend, points):
    oracles.assert_same_dendrogram(reprune.linkage(points, method, backend=backend), points, method)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", oracles.METHODS)
@settings(max_examples=10, deadline=None)
@given(points=strategies.points(strategies.TIED, n=14, d=4))
def test_tied_points_make_a_greedy_run(method, backend, points):
    oracles.assert_greedy_run(reprune.linkage(points, method, backend=backend), points, method)


@pytest.mark.parametrize("method", oracles.METHODS)
@pytest.mark.parametrize("kind", ["normal", "heavy", "duplicates"])
@pytest.mark.parametrize("n, d", [(300, 9), (513, 1), (130, 70), (257, 2)])
def test_larger_problems(method, kind, n, d):
    points = oracles.draw_points(kind, n, d, seed=n * d)
    oracles.assert_same_dendrogram(reprune.linkage(points, method), points, method)


@pytest.mark.parametrize("method", oracles.METHODS)
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + 100,
        lambda x: x * 1e-30,
        lambda x: x * 1e15,
        lambda x: np.ldexp(1.0, -np.arange(len(x)))[:, None] * np.ones_like(x),
        lambda x: np.round(x * 4) / 4 + np.arange(len(x))[:, None] * 1e-3,
        lambda x: x * (np.arange(len(x)) % 2)[:, None],
    ],
    ids=["offset", "tiny", "huge", "geometric", "quantized", "half zero"],
)
@pytest.mark.parametrize("d", [1, 9])
def test_awkward_values(method, change, d):
    points = change(oracles.draw_points("normal", 40, d, seed=5))
    for name in BACKENDS:
        oracles.assert_same_dendrogram(reprune.linkage(points, method, backend=name), points, method)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_point_has_no_merges_and_two_have_one(backend):
    assert reprune.linkage(np.ones((1, 5)), backend=backend).shape == (0, 4)
    Z = reprune.linkage(np.array([[0.0, 0.0], [3.0, 4.0]]), backend=backend)
    assert Z.tolist() == [[0, 1, 5, 2]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_and_lists_are_their_problems(backend):
    batch = np.random.default_rng(0).normal(size=(5, 20, 3))
    single = [reprune.linkage(p, backend=backend) for p in batch]
    np.testing.assert_array_equal(reprune.linkage(batch, backend=backend), single)
    ragged = [p[: 3 * k + 1] for k, p in enumerate(batch)]
    for Z, p in zip(reprune.linkage(ragged, backend=backend), ragged, strict=True):
        np.testing.assert_array_equal(Z, reprune.linkage(p, backend=backend))
    assert reprune.linkage(batch[:0], backend=backend).shape == (0, 19, 4)
    assert reprune.linkage(batch[:, :1], backend=backend).shape == (5, 0, 4)


@pytest.mark.parametrize(
    "dtype",
    ["float16", "float32", "float64", "int8", "int32", "int64", "uint8"],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_dtypes(dtype, backend):
    points = (np.random.default_rng(0).normal(size=(30, 3)) * 20 + 40).astype(dtype)
    Z = reprune.linkage(points, "average", backend=backend)
    assert Z.dtype == np.float64
    np.testing.assert_array_equal(Z, reprune.linkage(points.astype(np.float64), "average", backend=backend))
    T = reprune.linkage(torch.from_numpy(points), "average", backend=backend)
    assert isinstance(T, torch.Tensor)
    assert T.dtype == torch.float64
    np.testing.assert_array_equal(T.numpy(), Z)


def test_bfloat16_and_tensors_that_need_gradients():
    points = torch.randn(3, 20, 4, generator=torch.Generator().manual_seed(0)).bfloat16().requires_grad_()
    torch.testing.assert_close(reprune.linkage(points), reprune.linkage(points.detach().double()))
    assert isinstance(reprune.linkage(list(points))[0], torch.Tensor)


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, ::2],
        lambda x: x[::-1, :, ::-1],
        lambda x: x.transpose(1, 0, 2),
        lambda x: x.transpose(2, 1, 0),
        lambda x: np.broadcast_to(x[:1], x.shape),
        lambda x: x.astype(">f8"),
        lambda x: np.lib.stride_tricks.as_strided(
            x.view(np.uint8)[..., 1:].copy().view(np.uint8), (3,), (1,)
        ).astype(float)[:, None],
    ],
)
def test_non_contiguous_points(view):
    points = view(np.random.default_rng(0).normal(size=(4, 12, 6)))
    np.testing.assert_array_equal(reprune.linkage(points), reprune.linkage(points.astype("f8").copy()))


def test_misaligned_points():
    raw = np.zeros(8 * 20 + 3, np.uint8)
    points = raw[3:].view(np.float64).reshape(10, 2)
    points[:] = np.random.default_rng(0).normal(size=(10, 2))
    np.testing.assert_array_equal(reprune.linkage(points), reprune.linkage(points.copy()))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_values_that_are_not_finite(value, dtype):
    points = np.ones((2, 5, 3), dtype)
    points[1, 2, 0] = value
    with pytest.raises(ValueError, match="points: expected finite numbers; got NaN or infinity"):
        reprune.linkage(points)
    with pytest.raises(ValueError, match=r"points\[1\]: expected finite numbers"):
        reprune.linkage(list(points))


def test_finite_values_whose_sum_is_not():
    points = np.full((4, 2), 1e308)
    points[0] = -1e308
    np.testing.assert_allclose(reprune.linkage(points / 4)[-1, 2], np.sqrt(12) * 0.25e308)
    assert reprune.linkage(np.abs(points)).shape == (3, 4)


@pytest.mark.parametrize(
    "points, method, error, message",
    [
        (np.ones((2, 2)), "median", ValueError, "method: expected one of ward, single, complete, average"),
        (np.ones(3), "ward", ValueError, r"points: expected shape \[n, d\] or \[B, n, d\]"),
        (np.ones((0, 3)), "ward", ValueError, r"points: expected at least one point .* got shape \[0, 3\]"),
        (np.ones((3, 0)), "ward", ValueError, r"at least one point of one coordinate"),
        (np.ones((3, 2), complex), "ward", TypeError, "points: expected real numbers .* complex128"),
        (np.array([["a"]]), "ward", TypeError, "points: expected real numbers"),
        (np.ones((3, 2), bool), "ward", TypeError, "points: expected real numbers .* bool"),
        ([np.ones((2, 2)), np.ones(2)], "ward", ValueError, r"points\[1\]: expected shape \[n, d\]"),
        ([np.ones((2, 2)), np.ones((0, 2))], "ward", ValueError, r"points\[1\]: expected at least one point"),
        (torch.eye(3).to_sparse(), "ward", TypeError, "points: expected a dense tensor"),
    ],
)
def test_errors(points, method, error, message):
    with pytest.raises(error, match=message):
        reprune.linkage(points, method)


@pytest.mark.parametrize("threads", ["1", "2", "7"])
def test_threads_do_not_change_the_result(threads, monkeypatch):
    batch = oracles.draw_points("heavy", 17 * 50, 4, seed=2).reshape(17, 50, 4)
    expected = reprune.linkage(batch)
    monkeypatch.setenv("REPRUNE_NUM_THREADS", threads)
    assert backend.num_threads() == int(threads)
    np.testing.assert_array_equal(reprune.linkage(batch), expected)


@pytest.mark.parametrize("method", oracles.METHODS)
@pytest.mark.parametrize("kind", ["normal", "heavy", "duplicates", "zeros"])
@pytest.mark.parametrize("n", [2, 3, 60, 301])
def test_condensed_distances(method, kind, n):
    points = oracles.draw_points(kind, n, 3, seed=n)
    Z = link_condensed(pdist(points), method)
    oracles.assert_same_dendrogram(Z, points, method, rtol=1e-9)


@pytest.mark.parametrize("method", oracles.METHODS)
def test_condensed_distances_of_no_points_in_space(method):
    distances = np.random.default_rng(0).uniform(1, 2, size=40 * 39 // 2)
    Z, expected = link_condensed(distances * 1e200, method), hierarchy.linkage(distances, method)
    np.testing.assert_array_equal(Z[:, [0, 1, 3]], expected[:, [0, 1, 3]])
    np.testing.assert_allclose(Z[:, 2], expected[:, 2] * 1e200, rtol=1e-12)
