"""The compiled Ward kernel, run instruction by instruction: results, and no race."""

import importlib.util

import numpy as np
import oracles
import pytest
from ptx import needs_simulator, open_files, simulator

import reprune

pytestmark = [
    needs_simulator,
    open_files,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("target", [80, 90])
def test_right_and_without_a_race(target, dtype):
    from reprune.kernels.rounds import ward_kernel

    numbers = {np.float32: "*fp32", np.float64: "*fp64"}[dtype]
    signature = dict.fromkeys(("centre", "size", "cost", "height"), numbers)
    signature |= dict.fromkeys(("nearest", "touched", "parent", "alive", "queue"), "*i32") | {"n": "i32"}
    cases = [("normal", 70, 9), ("heavy", 33, 1), ("zeros", 40, 4), ("normal", 50, 36)]
    for seed, (kind, n, d) in enumerate(cases):
        tile = {"D": d, "BI": 8, "BJ": 64, "BM": 32}  # more than one block of members
        kernel = simulator()[0].TritonKernel(
            ward_kernel, signature, tile, target=target, num_warps=1 + 3 * (seed % 2)
        )
        points = np.stack([oracles.draw_points(kind, n, d, seed + b) for b in range(2)]).astype(dtype)
        centre = np.ascontiguousarray((points - points.mean(axis=1, keepdims=True)).swapaxes(1, 2))
        size, cost, height = np.ones((2, n), dtype), np.zeros((2, n), dtype), np.zeros((2, n), dtype)
        nearest, touched, parent = (np.zeros((2, n), np.int32) for _ in range(3))
        lists = [np.tile(np.arange(n, dtype=np.int32), (2, 1)) for _ in range(2)]
        state = (centre, size, nearest, cost, touched, parent, height, *lists)
        kernel((2,), *state, n, race=True, seed=seed).check()
        expected = reprune.linkage(points)[..., 2]
        tolerance = (1e-6 if dtype is np.float32 else 1e-12) * expected.max()
        np.testing.assert_allclose(np.sort(height[:, 1:], axis=1), expected, rtol=0, atol=tolerance)
