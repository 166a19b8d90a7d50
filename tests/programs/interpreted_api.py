"""The public functions with backend="triton" under Triton's interpreter; run by test_kernels.py."""

import numpy as np
import pytest
import torch

import reprune
from reprune.graph import ChannelGraph
from reprune.kernels import select as kernels
from reprune.planner import decide
from tests.helpers import interpreter, oracles
from tests.helpers.networks import images, small_resnet
from tests.helpers.waits import Waits

interpreter.be_fast()


@pytest.mark.parametrize("ties", ["random", "norm"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (30, 8, 10), (65, 3, 65), (7, 0, 1), (200, 20, 30)], ids=str)
def test_coverage(shape, ties):
    labels = oracles.draw_labels(*shape, seed=1)
    O = len(labels)
    norms = np.random.default_rng(0).integers(3, size=O).astype(float) if ties == "norm" else None
    for keep in {1, (O + 1) // 2, O}:
        how = {"seed": 2**40 + keep, "ties": ties, "norms": norms, "name": "layer"}
        expected = reprune.max_coverage(labels, keep, backend="cpp", **how)
        found = reprune.max_coverage(labels, keep, backend="triton", **how)
        np.testing.assert_array_equal(found, expected)
        assert found[0].dtype == found[1].dtype == np.int64


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, ">i4"])
def test_coverage_of_any_integers_and_strides(dtype):
    labels = oracles.draw_labels(30, 8, 10, seed=1)
    expected = reprune.max_coverage(labels, 20)
    np.testing.assert_array_equal(reprune.max_coverage(labels.astype(dtype), 20, backend="triton"), expected)
    sparse = (labels.astype(np.int64) * 1_000_003)[:, ::-1]
    expected = reprune.max_coverage(sparse, 20)
    np.testing.assert_array_equal(reprune.max_coverage(sparse, 20, backend="triton"), expected)
    found = reprune.max_coverage(torch.from_numpy(labels), 20, backend="triton")
    assert all(isinstance(part, torch.Tensor) and part.dtype == torch.int64 for part in found)


@pytest.mark.parametrize("ties", ["random", "norm"])
def test_coverage_of_more_filters_than_the_kernel_has_room_for(ties):
    labels = oracles.draw_labels(4097, 2, 30, seed=1)
    how = {"ties": ties, "norms": np.arange(4097) % 5.0 if ties == "norm" else None, "seed": 3}
    expected = reprune.max_coverage(labels, 40, backend="cpp", **how)
    np.testing.assert_array_equal(reprune.max_coverage(labels, 40, backend="triton", **how), expected)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"labels": np.zeros(3, int)}, ValueError, r"labels: expected integers \[O, I\]"),
        ({"labels": np.zeros((3, 2))}, ValueError, "labels: expected integers .*float64"),
        ({"labels": np.zeros((0, 2), int)}, ValueError, "labels: expected integers"),
        ({"labels": np.full((3, 2), -1)}, ValueError, "labels: expected labels from 0"),
        ({"labels": np.full((3, 2), 2**31)}, ValueError, "labels: expected labels from 0"),
        ({"keep": 5}, ValueError, "keep: expected an integer from 1 to 4; got 5"),
        ({"seed": 0.5}, TypeError, "seed: expected an integer; got 0.5"),
        ({"ties": "norm"}, ValueError, "norms: expected with ties='norm'"),
    ],
)
def test_errors_of_coverage(change, error, message):
    given = {"labels": np.zeros((4, 2), int), "keep": 2} | change
    with pytest.raises(error, match=message):
        reprune.max_coverage(**given, backend="triton")


@pytest.mark.parametrize("shape", [(1, 9), (2, 1), (17, 1), (3, 4)], ids=str)
def test_linkage(shape):
    points = np.stack([oracles.draw_points("heavy", *shape, seed=s) for s in range(2)])
    for factor in (1.0, 1e-30, 1e150) if shape[0] < 4 else (1.0,):
        expected = reprune.linkage(points * factor, backend="cpp")
        found = reprune.linkage(points * factor, backend="triton")
        np.testing.assert_array_equal(found, expected)
    ragged = [points[0], points[1][:, :1], torch.from_numpy(points[1])]
    for ours, theirs in zip(
        reprune.linkage(ragged, backend="triton"), reprune.linkage(ragged, backend="cpp"), strict=True
    ):
        assert type(ours) is type(theirs)
        np.testing.assert_array_equal(ours, theirs)
    labels = reprune.cut(found, 1.0, backend="triton")
    np.testing.assert_array_equal(labels, reprune.cut(expected, 1.0))


@pytest.mark.parametrize("method", ["single", "complete", "average"])
def test_other_linkages(method):
    points = np.stack([oracles.draw_points("heavy", 9, 3, seed=s) for s in range(2)])
    expected = reprune.linkage(points, method, backend="cpp")
    np.testing.assert_array_equal(reprune.linkage(points, method, backend="triton"), expected)
    one = torch.from_numpy(points[0, :1])
    assert reprune.linkage(one, method, backend="triton").shape == (0, 4)


def test_pairwise():
    points = np.stack([oracles.draw_points("heavy", 9, 3, seed=s) * 10.0 ** (200 * s) for s in range(2)])
    expected = reprune.pairwise(points, backend="cpp")
    np.testing.assert_array_equal(reprune.pairwise(points, backend="triton"), expected)
    assert reprune.pairwise(points[:0], backend="triton").shape == (0, 9, 9)
    with pytest.raises(ValueError, match="points: expected at most 65535 points for backend 'triton'"):
        reprune.pairwise(np.zeros((65536, 1)), backend="triton")


@pytest.mark.parametrize(
    "points, how, message",
    [
        (np.zeros((16385, 1)), {"method": "single"}, "points: expected at most 16384 points for backend"),
        (np.zeros(3), {}, r"points: expected shape \[n, d\]"),
        (np.zeros((0, 2)), {}, "points: expected at least one point"),
        (np.zeros((65536, 1)), {}, "points: expected at most 65535 points for backend 'triton'; got 65536"),
        (np.full((3, 2), np.nan), {}, "points: expected finite numbers"),
        ([np.eye(3), np.full((3, 2), np.inf)], {}, r"points\[1\]: expected finite numbers"),
    ],
)
def test_errors_of_linkage(points, how, message):
    with pytest.raises(ValueError, match=message):
        reprune.linkage(points, backend="triton", **how)


@pytest.mark.parametrize(  # what breaks ties has no part in the clustering, which takes seconds here
    "shape, ties",
    [((8, 2, 3, 3), "norm"), ((14, 3), "random"), ((1, 3, 3, 3), "random"), ((1, 3, 3, 3), "norm")],
    ids=str,
)
def test_selection(shape, ties):
    weight = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    for keep in ((len(weight) + 1) // 2, len(weight)):
        expected = reprune.select_filters(weight, keep, ties=ties, backend="cpp")
        found = reprune.select_filters(weight, keep, ties=ties, backend="triton")
        for name in ("keep", "order", "gains", "labels", "clusters"):
            ours, theirs = getattr(found, name), getattr(expected, name)
            np.testing.assert_array_equal(ours, theirs)
            assert type(ours) is np.ndarray
            assert ours.dtype == theirs.dtype
        assert found.heights == expected.heights
    tensor = reprune.select_filters(torch.from_numpy(weight[:3]), 1, ties=ties, backend="triton")
    assert all(isinstance(part, torch.Tensor) for part in (tensor.keep, tensor.labels, tensor.clusters))


def test_the_limit_is_that_of_the_kernels():
    from reprune.clustering.arrays import MOST_ON_GPU
    from reprune.kernels.launch import MOST_POINTS

    assert MOST_ON_GPU == MOST_POINTS


def test_errors_of_selection():
    for weight, message in (
        (np.ones(4), r"weight: expected shape \[O, I, ...\]"),
        (np.full((4, 2), np.nan), "weight: expected finite numbers"),
        (np.ones((65536, 1)), "expected at most 65535 filters for backend 'triton'; got 65536"),
    ):
        with pytest.raises(ValueError, match=message):
            reprune.select_filters(weight, 2, backend="triton")


@pytest.mark.parametrize(
    "how",
    [
        {"sparsity": 0.5},
        pytest.param(
            {"params": 0.6, "ties": "norm", "scope": "all", "rule": "uniform"}, marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
def test_the_plan_of_cpp(how, monkeypatch):
    """And the host waits twice: for what decides how many filters stay, before it starts anything, and for
    the picks. Tracing the graph, before and after, is not counted."""
    log, launched = Waits(), []
    before, after = decide.trace, ChannelGraph.certify
    monkeypatch.setattr(decide, "trace", lambda *args, **how: log.go(before(*args, **how)))
    monkeypatch.setattr(ChannelGraph, "certify", lambda *args: after(*args) if log.stop() is None else None)
    selecting = kernels.Selecting
    monkeypatch.setattr(kernels, "Selecting", lambda *a: launched.append(len(log.found)) or selecting(*a))
    model = small_resnet(channels=3, inner=4, blocks=1)
    expected = reprune.make_plan(model, images(), backend="cpp", **how).to_json()
    log.found.clear()
    with log:
        plan = reprune.make_plan(model, images(), backend="triton", **how)
    assert plan.to_json() == expected
    assert log.found == ["tensors.py:together"] * 2
    assert launched == [1]  # all layers at once, after the first
