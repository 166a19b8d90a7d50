"""Ward in Triton under Triton's interpreter, against the C++ core: the same to the last bit.

The whole table takes hours on one core; tests/test_kernels.py runs a part of it:

    TRITON_INTERPRET=1 python -P -m pytest -q tests/tools/interpreted_kernels.py
"""

import numpy as np
import pytest
import torch

import reprune
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers
from reprune.kernels.linkage import ward
from reprune.kernels.select import cluster_layers
from tests.helpers import interpreter, nine_kinds

interpreter.be_fast()

SIZES = (1, 2, 3, 6, 9, 17, 33, 64, 200, 512)

# of lanes that hold nothing
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


@pytest.fixture(autouse=True)
def poison(monkeypatch):
    """Memory that nothing was written to is full of NaN and of integers that lead nowhere."""
    empty = torch.empty

    def poisoned(*args, **kwargs):
        tensor = empty(*args, **kwargs)
        return tensor.fill_(torch.nan if tensor.is_floating_point() else -(2**30))

    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("d", [1, 4, 9, 25, 49])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", nine_kinds.KINDS)
def test_trees(kind, n, d, dtype):
    points = nine_kinds.draw(kind, (1, n, d), seed=n + d).astype(dtype)
    np.testing.assert_array_equal(ward(torch.from_numpy(points)).numpy(), reprune.linkage(points))


@pytest.mark.parametrize("d", [1, 4, 9])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", nine_kinds.KINDS)
def test_clusters(kind, n, d):
    points = nine_kinds.draw(kind, (2, n, d), seed=n + d).astype(np.float32)
    problem = LayerProblem("layer", (points,), (n + 1) // 2)
    (found,) = cluster_layers([([torch.from_numpy(points)], problem.keep)])
    (expected,) = select_layers([problem])
    np.testing.assert_array_equal(found.labels.T, expected.labels)
    np.testing.assert_array_equal(found.clusters, expected.clusters)
    assert tuple(found.heights.tolist()) == expected.heights
