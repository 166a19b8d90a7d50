import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist

import reprune
from tests.helpers import oracles

BACKENDS = ("reference", "cpp")


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=50, deadline=None)
@given(
    kind=st.sampled_from(["normal", "duplicates", "lattice", "zeros"]),
    n=st.integers(2, 40),
    seed=st.integers(0, 2**32 - 1),
    share=st.floats(-0.1, 1.1),
)
def test_labels_are_fclusters(backend, kind, n, seed, share):
    Z = hierarchy.linkage(pdist(oracles.draw_points(kind, n, 3, seed)), "average")
    for height in (share * Z[-1, 2], *Z[:, 2]):
        labels = reprune.cut(Z, height, backend=backend)
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, oracles.canonical(hierarchy.fcluster(Z, height, "distance")))


@pytest.mark.parametrize("backend", BACKENDS)
def test_labels_are_numbered_by_first_appearance(backend):
    Z = np.array([[1, 3, 1.0, 2], [0, 4, 2.0, 2], [2, 5, 3.0, 3], [6, 7, 4.0, 5]])
    expected = {0.5: [0, 1, 2, 3, 4], 1: [0, 1, 2, 1, 3], 2: [0, 1, 2, 1, 0], 3: [0, 1, 1, 1, 0], 4: [0] * 5}
    for height, labels in expected.items():
        assert reprune.cut(Z, height, backend=backend).tolist() == labels


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_merge_counts_only_with_all_below_it(backend):
    Z = np.array([[0, 1, 5.0, 2], [2, 3, 2.0, 3]])  # an inversion, as centroid linkage makes them
    assert reprune.cut(Z, 3, backend=backend).tolist() == [0, 1, 2]
    assert reprune.cut(Z, 5, backend=backend).tolist() == [0, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_lists_and_heights(backend):
    points = np.random.default_rng(0).normal(size=(4, 15, 2))
    Z = reprune.linkage(points)
    heights = Z[:, 7, 2]
    single = [reprune.cut(z, h, backend=backend) for z, h in zip(Z, heights, strict=True)]
    np.testing.assert_array_equal(reprune.cut(Z, heights, backend=backend), single)
    np.testing.assert_array_equal(reprune.cut(list(Z), heights.tolist(), backend=backend), single)
    one = reprune.cut(torch.from_numpy(Z), torch.tensor(1.0), backend=backend)
    assert isinstance(one, torch.Tensor)
    assert one.dtype == torch.int32
    np.testing.assert_array_equal(one.numpy(), reprune.cut(Z, 1, backend=backend))
    assert isinstance(reprune.cut([torch.from_numpy(z) for z in Z], 1, backend=backend)[3], torch.Tensor)
    assert reprune.cut(Z[:0], 1, backend=backend).shape == (0, 15)
    assert reprune.cut(np.empty((0, 4)), 1, backend=backend).tolist() == [0]


@pytest.mark.parametrize(
    "Z, height, message",
    [
        (np.ones(4), 1, r"Z: expected \[n-1, 4\] or \[B, n-1, 4\]"),
        (np.ones((3, 3)), 1, "Z: expected"),
        (np.array([[0, 3, 1.0, 2], [1, 2, 1, 2]]), 1, "Z: expected ids of earlier clusters"),
        (np.array([[0, 1, 1.0, 2], [1, 3, 1, 3]]), 1, "each merged once"),
        (np.array([[0, 0.5, 1.0, 2]]), 1, "Z: expected ids"),
        (np.array([[0, np.nan, 1.0, 2]]), 1, "Z: expected ids"),
        (np.array([[-1, 0, 1.0, 2]]), 1, "Z: expected ids"),
        (np.array([[0, 1, np.nan, 2]]), 1, "Z: expected heights in column 2; got NaN"),
        (np.array([[0, 1, 1.0, 2]]), np.nan, "height: expected a number; got NaN"),
        (np.array([[0, 1, 1.0, 2]]), [1, 2], r"height: expected one number or one per problem \[1\]"),
    ],
)
def test_errors(Z, height, message):
    with pytest.raises(ValueError, match=message):
        reprune.cut(Z, height)
