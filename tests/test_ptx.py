"""The compiled linkage and cut kernels, run instruction by instruction: results, races, cost."""

from functools import cache

import numpy as np
import pytest

from reprune.clustering import reference
from tests.helpers import oracles
from tests.helpers.ptx import benchmarks, needs_simulator, needs_triton, open_files, simulator

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


SIZES = {9: (1, 2, 65, 512), 1: (1, 2, 65, 512), 4: (3, 64, 130), 25: (17, 70)}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("d", SIZES)
def test_ward_is_right_and_without_a_race(d, target, dtype):
    kernel = ward_kernel(target, dtype, d)
    for kind in ("normal", "heavy", "duplicates"):
        problems = [draw(kind, n, d, 0, dtype) for n in SIZES[d]]
        found = []
        for seed in range(3):
            stats, links = run_ward(kernel, problems, race=True, seed=seed)
            stats.check()
            found.append(links)
        for points, *links in zip(problems, *found, strict=True):
            assert right(points, links[0], 1e-6 if dtype is np.float32 else 1e-12), (kind, len(points))
            for other in links[1:]:
                np.testing.assert_array_equal(other, links[0])


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


@pytest.mark.parametrize("d", [1, 4, 9])
def test_every_barrier_of_ward_is_needed(d):
    problems = [draw(kind, n, d, 0, np.float32) for kind in ("heavy", "duplicates") for n in (65, 130)]
    kernel = ward_kernel("sm_90", np.float32, d)
    _, expected = run_ward(kernel, problems)

    def run(module, seed):
        stats, links = run_ward(kernel.of(module), problems, race=True, seed=seed)
        return stats, all(np.array_equal(a, b) for a, b in zip(links, expected, strict=True))

    results = simulator()[1].mutate(kernel.text, run)
    assert results
    assert [result for result in results if not result.raced and not result.error] == []


def layers(sizes, d):
    """Links of problems of the sizes, three of each that are a layer; its merges, cut and labels."""
    links, owners, merges, expected = [], [], [], []
    for layer, n in enumerate(sizes):
        merges.append(n // 2)
        trees = []
        for seed in range(3):
            points = draw("heavy", n, d, seed, np.float64)
            _, (link,) = run_ward(ward_kernel("sm_90", np.float64, d), [points])
            trees.append(reference.linkage(points, "ward"))
            links.append(link)
            owners.append(layer)
        cut = max(tree[n // 2 - 1, 2] for tree in trees) if n > 1 else -np.inf
        expected += [(cut, reference.cut(tree, cut)) for tree in trees]
    return links, owners, merges, expected


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("sizes", [(1, 2, 17, 32), (300, 512), (1100,)], ids=str)
def test_the_cut_is_right_and_without_a_race(sizes, target):
    *given, expected = layers(sizes, 1)
    kernels = benchmarks()[2].cut_kernels_of(simulator()[0], max(sizes), target)
    for seed in range(3):
        stats, cuts, found = benchmarks()[2].cut(kernels, *given, race=True, seed=seed)
        for launch in stats:
            launch.check()
        for owner, (labels, clusters), (cut, own) in zip(given[1], found, expected, strict=True):
            # the decisive merge itself is at the cut, whatever the last bit of its height
            np.testing.assert_allclose(cuts[owner], cut, rtol=1e-12)
            assert clusters == labels.max() + 1
            np.testing.assert_array_equal(labels, own)


@pytest.mark.parametrize("n", [200, 1100])  # one warp and several
def test_every_barrier_of_the_cut_is_needed(n):
    links, owners, merges, _ = layers((n,), 1)
    kernels = benchmarks()[2].cut_kernels_of(simulator()[0], n)
    _, _, expected = benchmarks()[2].cut(kernels, links, owners, merges)
    for which in (0, 1):

        def run(module, seed, which=which):
            own = list(kernels)
            own[which] = kernels[which].of(module)
            stats, _, found = benchmarks()[2].cut(own, links, owners, merges, race=True, seed=seed)
            return stats[which], all(
                np.array_equal(a, c) and b == d for (a, b), (c, d) in zip(found, expected, strict=True)
            )

        results = simulator()[1].mutate(kernels[which].text, run)
        assert results or which == 0  # one warp finds a height without
        assert [result for result in results if not result.raced and not result.error] == []
