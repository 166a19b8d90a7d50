"""Ward in Triton under Triton's interpreter, against the reference and a greedy replay.

The whole table, 400 cases, takes about 20 minutes on one core; tests/test_kernels.py runs a part of it:

    TRITON_INTERPRET=1 python -P -m pytest -q tests/tools/interpreted_kernels.py
"""

import numpy as np
import pytest
import torch

from reprune.clustering import reference
from reprune.kernels.linkage import dendrograms, link
from tests.helpers import oracles

SIZES = (1, 2, 3, 17, 64, 65, 200, 512)
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}  # of the largest height


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Memory that nothing was written to is full of NaN and of integers that lead nowhere."""
    empty = torch.empty

    def poisoned(*args, **kwargs):
        tensor = empty(*args, **kwargs)
        return tensor.fill_(torch.nan if tensor.is_floating_point() else -(2**30))

    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("d", [1, 4, 9, 25, 49])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", ["normal", "heavy", "sparse", "duplicates", "zeros"])
def test_ward(kind, n, d, dtype):
    points = oracles.draw_points(kind, n, d, seed=n + d).astype(dtype)
    trees = link([torch.from_numpy(points)[None]], dtype)
    Z = dendrograms(trees)[0].numpy()
    assert Z.shape == (n - 1, 4)
    oracles.assert_greedy_ward(Z, points, TOLERANCE[dtype])
    up, tops = trees.up.numpy(), trees.tops.numpy()
    assert np.isinf(tops[0])
    assert (up[1:] < np.arange(1, n)).all()
    np.testing.assert_array_equal(np.sort(tops[1:]), Z[:, 2])
    if kind in ("normal", "heavy"):
        same_partitions(Z, up, tops, points.astype(np.float64), TOLERANCE[dtype])


def same_partitions(Z, up, tops, points, tolerance):
    """Heights, and clusters at every cut that rounding does not reach, are the reference's."""
    expected = reference.linkage(points, "ward")
    heights = expected[:, 2]
    slack = tolerance * heights.max(initial=0)
    np.testing.assert_allclose(Z[:, 2], heights, rtol=0, atol=slack)
    steps = np.diff(heights, prepend=0)
    cuts = (heights - steps / 2)[steps > 4 * slack]
    assert tolerance > 1e-9 or len(cuts) >= 0.9 * len(
        heights
    )  # float32 reaches more; the replay judges those
    for cut in cuts:
        labels = reference.cut(expected, cut)
        np.testing.assert_array_equal(reference.cut(Z, cut), labels)
        np.testing.assert_array_equal(oracles.labels_of_links(up, tops, cut), labels)
