"""tests/test_ptx.py at 2,048 points and more: race detection, poisoned buffers, three seeds.

A quarter of an hour, and not a part of the suite:

    python -P -m pytest -q tests/tools/ptx_largest.py
"""

import numpy as np
import pytest

import reprune
from tests import test_ptx
from tests.helpers.ptx import needs_simulator, needs_triton, open_files

pytestmark = [needs_simulator, needs_triton, open_files]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("d", [1, 4, 9])
def test_ward(d, target, dtype):
    points = test_ptx.draw("heavy", 2048, d, 0, dtype)
    found = []
    for seed in range(3):
        stats, [links] = test_ptx.run_ward(
            test_ptx.ward_kernel(target, dtype, d), [points], race=True, seed=seed
        )
        stats.check()
        found.append(links)
        print(f"d = {d}, {target}, {dtype.__name__}, seed {seed}: {stats.warp_insts} warp instructions")
    assert test_ptx.right(points, found[0], 1e-6 if dtype is np.float32 else 1e-12)
    for links in found[1:]:
        np.testing.assert_array_equal(links, found[0])


@pytest.fixture
def fast(monkeypatch):
    """The C++ core stands for the reference, which needs a minute for 4,096 points."""
    monkeypatch.setattr(test_ptx.reference, "linkage", lambda x, method: reprune.linkage(x, method))


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("n", [2048, 4096])
def test_cut(n, target):
    test_ptx.test_the_cut_is_right_and_without_a_race((n,), target)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("n", [2048, 4096])
def test_barriers_of_the_cut(n):
    test_ptx.test_every_barrier_of_the_cut_is_needed(n)
