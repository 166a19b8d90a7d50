"""The compiled kernels of the linkage and the cut, run instruction by instruction: results, races, cost.

Results are the C++ core's to the last bit. Every buffer that a kernel has to fill is poisoned.
"""

import numpy as np
import pytest
import torch

import reprune
from reprune.clustering import backends
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers
from reprune.kernels import linkage, pairwise, select, square
from tests.helpers import drawn, nine_kinds
from tests.helpers.ptx import benchmarks, needs_simulator, needs_triton, open_files, simulator

pytestmark = [needs_simulator, needs_triton, open_files]

ONE_WARP = {"R": 8, "B": 32, "num_warps": 1, "maxnreg": 168}
EIGHT_WARPS = {"R": 32, "B": 256, "num_warps": 8, "maxnreg": 128}


def device(target="sm_90", **how):
    return benchmarks()[2].Device(simulator()[0], target, **how)


def assert_tree(own, points):
    with own:
        Z = linkage.ward(torch.from_numpy(points)).numpy()
    np.testing.assert_array_equal(Z, reprune.linkage(points, backend="cpp"))


def assert_clusters(own, tables, keeps, scratch=linkage.SCRATCH):
    with own:
        found = select.cluster_layers(
            [([torch.from_numpy(x)], keep) for x, keep in zip(tables, keeps, strict=True)], scratch
        )
    expected = select_layers([LayerProblem("", (x,), keep) for x, keep in zip(tables, keeps, strict=True)])
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.labels.T, theirs.labels)
        np.testing.assert_array_equal(ours.clusters, theirs.clusters)
        assert tuple(ours.heights.tolist()) == theirs.heights


@pytest.mark.parametrize("n", [70, 200, 500])  # tiles of one, two and four warps
@pytest.mark.parametrize("kind", nine_kinds.KINDS)
def test_ward_is_the_cores_and_without_a_race(kind, n):
    for seed in range(2):
        points = nine_kinds.draw(kind, (1, n, 9), seed).astype(np.float32)
        assert_tree(device(race=True, seed=seed), points)
        assert_clusters(device(race=True, seed=seed), [points], [n // 2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", nine_kinds.KINDS)
def test_a_line_is_the_cores_and_without_a_race(kind, dtype):
    for n in (1, 2, 33, 300):
        points = nine_kinds.draw(kind, (2, n, 1), n).astype(dtype)
        assert_tree(device(race=True, seed=n), points)
        assert_clusters(device(race=True, seed=n), [points], [(n + 1) // 2])


@pytest.mark.parametrize("method", square.METHODS)
@pytest.mark.parametrize("kind", nine_kinds.KINDS)
def test_other_linkages_are_the_cores_and_without_a_race(kind, method):
    for n, d in ((2, 1), (20, 1), (70, 4)):  # a program of one warp, and of four
        points = nine_kinds.draw(kind, (2, n, d), n).astype(np.float32 if n == 20 else np.float64)
        with device(race=True, seed=n):
            Z = square.link(torch.from_numpy(points), method, scratch=1).numpy()
        np.testing.assert_array_equal(Z, reprune.linkage(points, method, backend="cpp"))


def test_distances_are_the_cores_and_without_a_race():
    for n, d, scale in ((2, 1, 1.0), (70, 4, 1e-200), (300, 9, 1e300)):
        points = nine_kinds.draw("normal", (2, n, d), n) * scale
        with device(race=True, seed=n):
            found = pairwise.pairwise(torch.from_numpy(points)).numpy()
        np.testing.assert_array_equal(found, reprune.pairwise(points, backend="cpp"))


@pytest.mark.slow
@pytest.mark.parametrize("method", square.METHODS)
def test_other_linkages_of_many_points(method):  # a program of eight warps
    points = nine_kinds.draw("lattice", (1, 1100, 2), 0)
    with device(race=True):
        Z = square.link(torch.from_numpy(points), method).numpy()
    np.testing.assert_array_equal(Z, reprune.linkage(points, method, backend="cpp"))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("d", [2, 4, 9, 16, 17, 25, 128])
def test_other_chips_and_kernels(d, target):
    for k, kind in enumerate(nine_kinds.KINDS):
        points = nine_kinds.draw(kind, (1, 60 + k, d), d)
        assert_tree(device(target, race=True), points if k % 2 else points.astype(np.float32))


@pytest.mark.parametrize("d", [1, 9])
def test_numbers_of_every_size(d):
    rng = np.random.default_rng(d)
    for scale in (1e-310, 1e-150, 1e150, 10.0 ** rng.integers(-300, 300, (2, 20, d))):
        points = rng.normal(size=(2, 20, d)) * scale
        assert_tree(device(race=True), points)
        assert_clusters(device(race=True), [points], [10])


@pytest.mark.parametrize("d", [1, 2])
def test_points_that_differ_in_their_last_bits(d):
    """Rounding joins some at height 0, and decides: all are done by the rule."""
    for seed in range(3):
        points = drawn.draw("last bits", (20, 2, d), seed).swapaxes(0, 1)
        assert_tree(device(race=True, seed=seed), points)
        assert_clusters(device(race=True, seed=seed), [points], [10])


@pytest.mark.parametrize("kind", ["plane", "wide", "line"])
def test_layers_cut_at_0(kind):
    for weight, keep in list(drawn.cut_at_0(kind))[::4]:
        assert_clusters(device(race=True), [np.ascontiguousarray(weight.swapaxes(0, 1))], [keep])


@pytest.mark.slow
@pytest.mark.parametrize("kind", nine_kinds.KINDS)
def test_programs_of_eight_and_sixteen_warps(kind):
    points = nine_kinds.draw(kind, (1, 200, 9), 3).astype(np.float32)
    assert_clusters(device(race=True, seed=1, tile=EIGHT_WARPS), [points], [100])
    line = nine_kinds.draw(kind, (1, 2100, 1), 3).astype(np.float32)
    assert_clusters(device(race=True, seed=1), [line], [1050])


@pytest.mark.slow
def test_vectors_as_long_as_a_head():
    for d in (64, 192, 512):
        points = np.random.default_rng(d).normal(size=(2, 12, d)).astype(np.float32)
        assert_tree(device(race=True), points)
        assert_clusters(device(race=True), [points], [6])


@pytest.mark.parametrize(
    "name, kind, shape, beside",
    [
        ("label_kernel", "duplicates", (2, 70, 1), 0),
        pytest.param("line_kernel", "duplicates", (2, 70, 1), 0, marks=pytest.mark.slow),
        pytest.param("ward_kernel", "normal", (1, 500, 9), 3, marks=pytest.mark.slow),
    ],
)
def test_every_barrier_is_needed(name, kind, shape, beside):
    """Taken out of the PTX, it leaves a race, results that are wrong, or no end.

    That is for one warp: with four, some of ours stand `beside` those that the compiler puts into sums.
    """
    points = nine_kinds.draw(kind, shape, 0).astype(np.float32)
    keep = shape[1] // 2

    def run(module, seed):
        own = device(race=True, seed=seed, max_insts=3_000_000)
        own.instead[name] = module
        try:
            assert_clusters(own, [points], [keep])
        except AssertionError:
            return own.stats[-1], False
        return next(stats for stats in own.stats if stats.kernel == name), True

    own = device()
    assert_clusters(own, [points], [keep])
    results = simulator()[1].mutate(own.texts[name], run)
    executed = [x for x in results if x.executed]
    assert executed
    silent = [x for x in executed if not (x.raced or x.error or x.wrong)]
    assert len(silent) == beside


def test_layers_of_any_size_share_launches():
    rng = np.random.default_rng(0)
    shapes = [(3, 64, 9), (2, 30, 9), (4, 100, 1), (1, 1, 9), (2, 50, 1), (0, 7, 9)]
    tables = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    keeps = [20, 30, 1, 1, 25, 3]
    own = device(race=True)
    assert_clusters(own, tables[:-1], keeps[:-1])
    assert len([stats for stats in own.stats if stats.kernel == "ward_kernel"]) == 2  # phases
    own = device(race=True)
    assert_clusters(own, tables[:-1], keeps[:-1], scratch=1)  # every problem by itself
    assert len([stats for stats in own.stats if stats.kernel == "ward_kernel"]) == 3 + 2 + 2


def test_the_backend_is_the_core(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert backends.interpreted()
    for seed in range(6):
        rng = np.random.default_rng(seed)
        kind = ("normal", "lattice", "bfloat16")[seed % 3]
        weight = nine_kinds.draw(kind, (3, int(rng.integers(2, 150)), 9), seed).swapaxes(0, 1)
        how = {"keep": len(weight) // 2 + 1, "seed": seed, "ties": ("random", "norm")[seed % 2]}
        with device():
            ours = reprune.select_filters(weight, backend="triton", **how)
        theirs = reprune.select_filters(weight, backend="cpp", **how)
        assert ours.heights == theirs.heights
        for name in ("order", "gains", "labels", "clusters"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize(
    "n, d, most", [(64, 9, 33_000), (256, 9, 160_000), (512, 9, 450_000), (512, 1, 45_000)]
)
def test_warp_instructions(n, d, most):
    points = nine_kinds.draw("normal", (1, n, d), 0).astype(np.float32)
    own = device(tile=ONE_WARP if d > 1 else None)
    assert_clusters(own, [points], [n // 2])
    assert own.count("ward") + own.count("line") <= most


@pytest.mark.slow
def test_warp_instructions_of_many_points():
    points = nine_kinds.draw("normal", (1, 2048, 9), 0).astype(np.float32)
    own = device(tile=ONE_WARP)
    assert_clusters(own, [points], [1024])
    assert own.count("ward") <= 5_400_000


@pytest.mark.slow
@pytest.mark.parametrize("n, d", [(6144, 1), (7392, 1), (65535, 1), (8192, 9)])
def test_more_points_than_there_were(n, d):
    points = nine_kinds.draw("normal", (1, n, d), 0).astype(np.float32)
    assert_tree(device(), points)


@pytest.mark.slow
def test_nearly_all_rows_undecided():
    points = nine_kinds.draw("clusters", (1, 600, 9), 1).astype(np.float32)
    own = device()
    assert_clusters(own, [points], [300])
    assert own.count("ward") < 30e6
