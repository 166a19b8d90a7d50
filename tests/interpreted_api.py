"""The public functions with backend="triton" under Triton's interpreter; run by test_interpreted_api.py."""

import numpy as np
import pytest
import torch

import reprune


def draw_labels(O, I, clusters, seed):
    return np.random.default_rng(seed).integers(clusters, size=(O, I)).astype(np.int32)


@pytest.mark.parametrize("ties", ["random", "norm"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (30, 8, 10), (65, 3, 65), (7, 0, 1), (200, 20, 30)], ids=str)
def test_coverage(shape, ties):
    labels = draw_labels(*shape, seed=1)
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
    labels = draw_labels(30, 8, 10, seed=1)
    expected = reprune.max_coverage(labels, 20)
    np.testing.assert_array_equal(reprune.max_coverage(labels.astype(dtype), 20, backend="triton"), expected)
    sparse = (labels.astype(np.int64) * 1_000_003)[:, ::-1]
    expected = reprune.max_coverage(sparse, 20)
    np.testing.assert_array_equal(reprune.max_coverage(sparse, 20, backend="triton"), expected)
    found = reprune.max_coverage(torch.from_numpy(labels), 20, backend="triton")
    assert all(isinstance(part, torch.Tensor) and part.dtype == torch.int64 for part in found)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"labels": np.zeros(3, int)}, ValueError, r"labels: expected integers \[O, I\]"),
        ({"labels": np.zeros((3, 2))}, ValueError, "labels: expected integers .*float64"),
        ({"labels": np.zeros((0, 2), int)}, ValueError, "labels: expected integers"),
        ({"labels": np.full((3, 2), -1)}, ValueError, "labels: expected labels from 0"),
        ({"labels": np.full((3, 2), 2**31)}, ValueError, "labels: expected labels from 0"),
        ({"labels": np.zeros((5000, 2), int)}, ValueError, "4096 filters for backend 'triton', got 5000"),
        ({"keep": 5}, ValueError, "keep: expected an integer from 1 to 4; got 5"),
        ({"seed": 0.5}, TypeError, "seed: expected an integer; got 0.5"),
        ({"ties": "norm"}, ValueError, "norms: expected with ties='norm'"),
    ],
)
def test_errors_of_coverage(change, error, message):
    given = {"labels": np.zeros((4, 2), int), "keep": 2} | change
    with pytest.raises(error, match=message):
        reprune.max_coverage(**given, backend="triton")
