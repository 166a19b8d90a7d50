"""The compiled linkage and cut kernels, run instruction by instruction: results, races, cost."""

from functools import cache

import numpy as np
import oracles
import pytest
from ptx import benchmarks, needs_simulator, needs_triton, open_files, simulator

from reprune import reference

pytestmark = [needs_simulator, needs_triton, open_files]


@cache
def ward_kernel(target, dtype, d):
    return benchmarks()[2].ward_kernel(simulator()[0], d, dtype, target)


def run_ward(kernel, problems, **how):
    return benchmarks()[2].ward(kernel, problems, **how)


def right(points, links, tolerance):
    """Are the heights the reference's, and the clusters at cuts that rounding cannot reach?"""
    up, tops = links
    Z = reference.linkage(points.astype(np.float64), "ward")
    heights = Z[:, 2]
    slack = tolerance * max(1e-300, heights.max(initial=0))
    if not np.isinf(tops[0]) or not np.allclose(np.sort(tops[1:]), heights, rtol=0, atol=slack):
        return False
    gaps = np.flatnonzero(np.diff(heights, prepend=0) > 10 * slack)
    cuts = heights[gaps] - np.diff(heights, prepend=0)[gaps] / 2
    return all((oracles.labels_of_links(up, tops, cut) == reference.cut(Z, cut)).all() for cut in cuts)


def draw(kind, n, d, seed, dtype):
    points = oracles.draw_points(kind, n, d, seed)
    points = points - points.mean(axis=0)
    return (points / max(1, np.abs(points).max())).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
def test_ward_is_right_and_without_a_race(target, dtype):
    sizes = {9: (1, 2, 65, 200), 1: (1, 2, 65, 512), 4: (3, 64, 130), 25: (17, 70)}
    for d, some in sizes.items():
        for seed, kind in enumerate(("normal", "heavy", "duplicates")):
            problems = [draw(kind, n, d, seed, dtype) for n in some]
            stats, links = run_ward(ward_kernel(target, dtype, d), problems, race=True, seed=seed)
            stats.check()
            for points, link in zip(problems, links, strict=True):
                assert right(points, link, 1e-6 if dtype is np.float32 else 1e-12), (d, kind, len(points))


@pytest.mark.parametrize("kind", ["zeros", "lattice"])
@pytest.mark.parametrize("d", [1, 9])
def test_ties_take_few_rounds(d, kind):
    points = draw(kind, 256, d, 0, np.float64)
    stats, [(up, tops)] = run_ward(ward_kernel("sm_90", np.float64, d), [points], race=True)
    stats.check()
    assert (up[1:] < np.arange(1, 256)).all()
    if kind == "zeros":
        assert (tops[1:] == 0).all()
    assert stats.warp_insts < 2e6


@pytest.mark.parametrize("n, d, most", [(256, 9, 300_000), (512, 9, 950_000), (512, 1, 60_000)])
def test_warp_instructions(n, d, most):
    points = draw("heavy", n, d, 0, np.float32)
    stats, _ = run_ward(ward_kernel("sm_90", np.float32, d), [points])
    assert stats.warp_insts <= most
