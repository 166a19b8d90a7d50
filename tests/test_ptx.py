"""The compiled linkage and cut kernels, run instruction by instruction: results, races, cost."""

import importlib.util
from functools import cache

import numpy as np
import oracles
import pytest
import torch
from ptx import needs_simulator, open_files, simulator

from reprune import reference

pytestmark = [
    needs_simulator,
    open_files,
    pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed"),
]

TYPES = {np.float32: "*fp32", np.float64: "*fp64"}


def shape(d, dtype):
    """As on a device."""
    from reprune.kernels.launch import ward_shape

    how = ward_shape(d, {np.float32: torch.float32, np.float64: torch.float64}[dtype], torch.device("cuda"))
    assert how.pop("num_warps") == 1
    return how


@cache
def ward_kernel(target, dtype, d):
    from reprune.kernels.ward import ward_kernel

    types = {"problems": "*i64", "points": TYPES[dtype], "costs": "*fp64", "tops": "*fp64"}
    constants = {"D": d, "DOUBLE": dtype is np.float64, "LINE": d == 1} | shape(d, dtype)
    signature = {name: types.get(name, "*i32") for name in ward_kernel.arg_names}
    return simulator()[0].TritonKernel(ward_kernel, signature, constants, target=target, num_warps=1)


def run_ward(launch, problems, dtype, **how):
    """Statistics, and for problems [n, d], all of one d, the links (up, tops). All memory is poisoned."""
    ptxsim, _ = simulator()
    memory = ptxsim.Memory()
    d, C = problems[0].shape[1], shape(problems[0].shape[1], dtype)["C"]
    rows, place, begin = [], 0, 0
    for points in problems:
        n = len(points)
        which = points[:, 0].argsort(kind="stable") if d == 1 else np.arange(n)
        source = memory.alloc(np.ascontiguousarray(points[which].T), ro=True).addr  # [d, n]
        order = memory.alloc(which, ro=True).addr if d == 1 else 0
        rows.append((source, 1, n, order, n, place, begin))
        place, begin = place + n, begin - (-n // C) * C
    reals, words = np.zeros(begin * (d + 4), dtype), np.zeros(begin * 5, np.int32)
    up, tops = np.zeros(place, np.int32), np.zeros(place)
    scratch = [reals, words, np.zeros((place, 3), np.int32), np.zeros(place), up, tops]
    stats = launch(
        (len(problems),), np.array(rows, np.int64), *map(ptxsim.Poison, scratch), memory=memory, **how
    )
    return stats, [(up[p : p + n], tops[p : p + n]) for *_, n, p, _ in rows]


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
@pytest.mark.parametrize("target", [80, 90])
def test_ward_is_right_and_without_a_race(target, dtype):
    sizes = {9: (1, 2, 65, 200), 1: (1, 2, 65, 512), 4: (3, 64, 130), 25: (17, 70)}
    for d, some in sizes.items():
        for seed, kind in enumerate(("normal", "heavy", "duplicates")):
            problems = [draw(kind, n, d, seed, dtype) for n in some]
            stats, links = run_ward(ward_kernel(target, dtype, d), problems, dtype, race=True, seed=seed)
            stats.check()
            for points, link in zip(problems, links, strict=True):
                assert right(points, link, 1e-6 if dtype is np.float32 else 1e-12), (d, kind, len(points))


@pytest.mark.parametrize("kind", ["zeros", "lattice"])
@pytest.mark.parametrize("d", [1, 9])
def test_ties_take_few_rounds(d, kind):
    points = draw(kind, 256, d, 0, np.float64)
    stats, [(up, tops)] = run_ward(ward_kernel(90, np.float64, d), [points], np.float64, race=True)
    stats.check()
    assert (up[1:] < np.arange(1, 256)).all()
    if kind == "zeros":
        assert (tops[1:] == 0).all()
    assert stats.warp_insts < 2e6


@pytest.mark.parametrize("n, d, most", [(256, 9, 300_000), (512, 9, 950_000), (512, 1, 60_000)])
def test_warp_instructions(n, d, most):
    points = draw("heavy", n, d, 0, np.float32)
    stats, _ = run_ward(ward_kernel(90, np.float32, d), [points], np.float32)
    assert stats.warp_insts <= most
