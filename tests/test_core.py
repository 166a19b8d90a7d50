"""The C++ core from inside: instruction sets, threads, awkward values, sizes, memory, the lock."""

import sys
import threading

import numpy as np
import pytest
from scipy.cluster import hierarchy

import reprune
from reprune import _core
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers
from tests.helpers import oracles
from tests.helpers.isas import ISAS
from tests.helpers.processes import run_code


def awkward(kind, O, I, d, seed=0):
    """A weight [O, I, d] that is hard on fixed point, on float32 or on the chain."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(O, I, d)).astype(np.float32)
    if kind == "heavy":
        weight = rng.standard_t(1.1, size=(O, I, d)).astype(np.float32)
    if kind == "equal":
        weight[:] = 0.3
    if kind == "half zero":
        weight[rng.permutation(O)[: O // 2]] = 0
        weight[:, ::2] = 0
    if kind == "geometric":
        weight = (np.exp2(-np.arange(O, dtype=np.float64))[:, None, None] * np.sign(weight)).astype(
            np.float32
        )
    if kind == "arithmetic of gaps":
        weight = (np.cumsum(np.arange(O))[:, None, None] * np.ones((1, I, d))).astype(np.float32)
    if kind == "quantized":
        weight = np.round(weight * 4) / 4
    if kind == "duplicates":
        weight = weight[rng.integers(O // 4, size=O)]
    if kind == "tiny":
        weight *= np.float32(1e-30)
    if kind == "huge":
        weight *= np.float32(1e15)
    if kind == "offset":
        weight += 100
    if kind == "one far away":
        weight[0] = 1e6
    if kind == "two scales":
        weight[::2] *= np.float32(1e-6)
    return weight


KINDS = (
    "normal, heavy, equal, half zero, geometric, arithmetic of gaps, quantized, duplicates, tiny, huge, "
    "offset, one far away, two scales"
).split(", ")
TIED = ("quantized", "arithmetic of gaps")  # dendrograms that are not unique


def table_of(weight):
    return weight.transpose(1, 0, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 9, 25])
def test_every_instruction_set_gives_the_same_bits(kind, d, isa):
    weight = awkward(kind, 150, 5, d)
    results = []
    for name in ISAS:
        assert isa(name)
        assert _core.isa() == name
        sel = reprune.select_filters(weight, 70)
        Z = reprune.linkage(table_of(weight))
        results.append((sel.height, sel.labels.tobytes(), sel.order.tobytes(), Z.tobytes()))
    assert len(results) >= 1
    assert len(set(results)) == 1


@pytest.mark.parametrize("n", [2, 8, 15, 17, 33, 49, 100, 257, 319, 1000, 4096, 4097])
def test_lines_of_any_length_are_the_same_on_every_instruction_set(n, isa):
    points = np.random.default_rng(n).normal(size=(4, n, 1)).astype(np.float32)
    points[1] = np.round(points[1] * 8) / 8
    points[2] *= np.exp2(np.arange(n) % 60)[:, None]
    results = []
    for name in ISAS:
        isa(name)
        results.append(reprune.linkage(points).tobytes())
    assert len(set(results)) == 1


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("d", [1, 9])
def test_a_selection_without_labels_is_the_same(name, d, isa):
    isa(name)
    problem = LayerProblem("a", (table_of(awkward("duplicates", 90, 21, d)),), 40)
    with_labels, without = (select_layers([problem], labels=labels)[0] for labels in (True, False))
    assert without.labels.size == 0
    assert without.height == with_labels.height
    for field in ("keep", "order", "gains", "clusters"):
        np.testing.assert_array_equal(getattr(without, field), getattr(with_labels, field))
    first = [np.unique(column, return_index=True)[1] for column in with_labels.labels.T]
    assert all((np.diff(seen) > 0).all() for seen in first)  # numbered in the order of their first filters
    assert [len(seen) for seen in first] == with_labels.clusters.tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 4, 9])
@pytest.mark.parametrize("name", ISAS)
def test_awkward_values_are_clustered_right(kind, d, name, isa):
    isa(name)
    weight = awkward(kind, 60, 3, d, seed=1)
    keep = 24
    sel = reprune.select_filters(weight, keep)
    trees = [hierarchy.linkage(points.astype(np.float64), "ward") for points in table_of(weight)]
    cut = max(Z[60 - keep - 1, 2] for Z in trees)
    if kind not in TIED:
        np.testing.assert_allclose(sel.height, cut, rtol=1e-12)
        for j, Z in enumerate(trees):
            expected = oracles.canonical(hierarchy.fcluster(Z, cut * (1 + 1e-11), "distance"))
            np.testing.assert_array_equal(sel.labels[:, j], expected)
    assert max(sel.clusters) <= keep or kind == "equal"
    oracles.assert_greedy_cover(sel.labels, sel.order, sel.gains)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [3, 9])
def test_many_points_are_clustered_by_lists_of_neighbours(kind, d, isa):
    points = table_of(awkward(kind, 1400, 1, d, seed=3))[0]
    results = []
    for name in ISAS:
        isa(name)
        sel = reprune.select_filters(points[:, None], 700)
        results.append((sel.height, sel.labels.tobytes(), reprune.linkage(points).tobytes()))
    assert len(set(results)) == 1
    if kind in TIED:
        return
    Z = reprune.linkage(points)
    expected = hierarchy.linkage(points.astype(np.float64), "ward")
    np.testing.assert_allclose(Z[:, 2], expected[:, 2], rtol=1e-12, atol=1e-14 * expected[-1, 2])
    for clusters in (2, 50, 700, 1200):
        cut = (expected[-clusters, 2] + expected[1 - clusters, 2]) / 2
        ours, theirs = (hierarchy.fcluster(tree, cut, "distance") for tree in (Z, expected))
        np.testing.assert_array_equal(oracles.canonical(ours), oracles.canonical(theirs))
    theirs = hierarchy.fcluster(expected, expected[699, 2] * (1 + 1e-11), "distance")
    np.testing.assert_array_equal(sel.labels[:, 0], oracles.canonical(theirs))


@pytest.mark.parametrize("d", [1, 2, 9])
@pytest.mark.parametrize("kind", TIED)
def test_tied_values_make_a_greedy_run(kind, d):
    points = table_of(awkward(kind, 24, 1, d, seed=2))[0]
    oracles.assert_greedy_run(reprune.linkage(points), points, "ward")


@pytest.mark.parametrize("kind", ["normal", "heavy"])
@pytest.mark.parametrize("shape", [(600, 3, 9), (2048, 2, 1), (700, 2, 49), (1100, 2, 2)])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.7])
def test_large_layers_are_scipys(kind, shape, share):
    O = shape[0]
    weight = awkward(kind, *shape, seed=O)
    keep = int(O * share)
    sel = reprune.select_filters(weight, keep)
    trees = [hierarchy.linkage(points.astype(np.float64), "ward") for points in table_of(weight)]
    cut = max(Z[O - keep - 1, 2] for Z in trees)
    np.testing.assert_allclose(sel.height, cut, rtol=1e-12)
    for j, Z in enumerate(trees):
        expected = oracles.canonical(hierarchy.fcluster(Z, cut * (1 + 1e-11), "distance"))
        np.testing.assert_array_equal(sel.labels[:, j], expected)


@pytest.mark.parametrize("spread", [1e-4, 1e-7, 1e-9, 1e-12])
@pytest.mark.parametrize("name", ISAS)
def test_groups_too_tight_for_fixed_point_and_float32(name, spread, isa):
    isa(name)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4, 5))[rng.integers(4, size=200)] + spread * rng.normal(size=(200, 5))
    expected = hierarchy.linkage(points, "ward")
    Z = reprune.linkage(points)
    np.testing.assert_allclose(Z[:, 2], expected[:, 2], rtol=1e-3)  # centroids carry rounding of 1e-16
    for k in (50, 100, 150, 196):
        cut = (expected[k - 1, 2] + expected[k, 2]) / 2
        ours, theirs = (hierarchy.fcluster(tree, cut, "distance") for tree in (Z, expected))
        np.testing.assert_array_equal(oracles.canonical(ours), oracles.canonical(theirs))


def test_channels_of_very_different_size():
    weight = awkward("normal", 80, 40, 9)
    weight *= np.exp2(np.linspace(-30, 0, 40, dtype=np.float32))[None, :, None]
    sel = reprune.select_filters(weight, 30)
    assert sel.clusters[0] == 1
    assert sel.clusters.max() == 30
    other = reprune.select_filters(weight, 30, backend="reference")
    np.testing.assert_array_equal(sel.labels, other.labels)


@pytest.mark.parametrize("name", ISAS)
@pytest.mark.parametrize("d", [1, 2, 9])
def test_channels_that_differ_in_all_that_one_is_clustered_by(name, d, isa):
    """Two are clustered in turns; the scale, the limit and the ties of one are not the other's."""
    isa(name)
    rng = np.random.default_rng(d)
    weight = rng.normal(size=(40, 25, d)) * rng.uniform(0.1, 1, size=(25, 1))
    weight[:, 1::5] = np.rint(weight[:, 1::5] * 4) / 4
    weight[:26, ::2] /= 1000  # makes merges enough far below the cut, and others about it
    weight[-1, 1::2] *= 64
    weight *= 2.0**200  # beyond what is left as it is: each channel is scaled by its own largest
    weight[0, ::3] = 2.0**-200  # too far from the others for squares
    found, expected = (reprune.select_filters(weight, 18, backend=b) for b in ("cpp", "reference"))
    assert found.height == expected.height
    for field in ("labels", "clusters", "order", "gains"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


@pytest.mark.parametrize("threads", ["1", "2", "7"])
def test_many_layers_on_any_number_of_threads(threads, monkeypatch):
    shapes = [(64, 40, 9), (200, 33, 1), (48, 3, 49), (129, 17, 9), (30, 70, 4), (300, 8, 1), (20, 20, 1)]
    problems = [
        LayerProblem(str(k), (table_of(awkward("heavy", *s, seed=k)),), s[0] // 2)
        for k, s in enumerate(shapes)
    ]
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "1")
    expected = [select_layers([p])[0] for p in problems]
    monkeypatch.setenv("REPRUNE_NUM_THREADS", threads)
    for one, other in zip(select_layers(problems), expected, strict=True):
        assert one.heights == other.heights
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.order, other.order)


@pytest.mark.parametrize(
    "O, I, d, keep",
    [(40, 9, 9, 17), (700, 37, 1, 300), (300, 16, 9, 290), (65536, 1, 1, 700), (65537, 1, 1, 700)],
)
def test_labels_are_left_out_on_request(O, I, d, keep):
    """Labels of up to 65,536 filters are then kept in two bytes while they are needed, and written over."""
    problems = [LayerProblem("a", (table_of(awkward("heavy", O, I, d, seed=1)),) * 2, keep)]
    (full,), (bare,) = select_layers(problems), select_layers(problems, labels=False)
    assert full.labels.shape == (O, 2 * I)
    assert bare.labels.size == 0
    np.testing.assert_array_equal(bare.order, full.order)
    np.testing.assert_array_equal(bare.clusters, full.clusters)
    assert (bare.heights, bare.coverage) == (full.heights, full.coverage)


def test_python_threads_at_once():
    weight = awkward("normal", 200, 20, 9)
    expected = reprune.select_filters(weight, 100)
    results = [None] * 6

    def work(k):
        results[k] = reprune.select_filters(weight, 100)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for sel in results:
        np.testing.assert_array_equal(sel.labels, expected.labels)
        np.testing.assert_array_equal(sel.order, expected.order)


def test_the_lock_is_released():
    points = np.random.default_rng(0).normal(size=(100, 400, 9))
    stop, count = threading.Event(), [0]

    def work():
        while not stop.is_set():
            count[0] += 1

    other = threading.Thread(target=work)
    other.start()
    try:
        before = count[0]
        _core.linkage(points, 0, 1)  # one call: Python could not switch threads in it by itself
        assert count[0] > before + 10
    finally:
        stop.set()
        other.join()


def test_more_points_than_sixteen_bits_number():
    values = np.random.default_rng(0).normal(size=(66_000, 1))
    Z = reprune.linkage(values)
    assert Z[-1, 3] == 66_000
    assert (np.diff(Z[:, 2]) >= 0).all()
    labels = reprune.cut(Z, Z[-10, 2])
    assert labels.max() == 9  # nine merges left
    sel = reprune.select_filters(values, 700)
    assert sel.clusters.tolist() == [700]
    assert len(set(sel.order.tolist())) == 700
    many = reprune.cut(Z, Z[300, 2])[:, None]
    assert many.max() > 65_536
    order, gains = reprune.max_coverage(many, 400)
    expected = reprune.max_coverage(many, 400, backend="reference")
    np.testing.assert_array_equal(order, expected[0])
    np.testing.assert_array_equal(gains, expected[1])


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_beyond_the_weights():
    """For kernels of 1 and 9 weights, each in a child with a peak of its own."""
    program = """
import os, resource, numpy as np
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers
def table(O, I, d):
    weight = np.random.default_rng(0).standard_normal((O, I, d), dtype=np.float32)
    return LayerProblem("x", (weight.transpose(1, 0, 2),), O // 2)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for d in (1, 9):
    if os.fork() == 0:
        select_layers([table(1024, 8, d)])
        large = table(1024, 2048, d)
        before = peak()
        select_layers([large])
        print((peak() - before) * 1024 / (1024 * 2048), flush=True)
        os._exit(0)
    os.wait()
"""
    done = run_code(program, check=True)
    found = [float(line) for line in done.stdout.splitlines()]
    assert len(found) == 2
    assert all(0 <= bytes_each < 12 for bytes_each in found)


@pytest.mark.skipif(sys.platform != "linux", reason="protects pages by the C library's mprotect")
def test_nothing_is_read_beyond_the_weights():
    """They begin or end where a page does, and beyond it is one that no one may read."""
    program = """
import ctypes, itertools, mmap, numpy as np, reprune
page, libc = mmap.PAGESIZE, ctypes.CDLL(None)
def guarded(values, at_end):
    pages = -(-values.nbytes // page)
    memory = mmap.mmap(-1, (pages + 2) * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for k in (0, pages + 1):
        assert libc.mprotect(ctypes.c_void_p(start + k * page), ctypes.c_size_t(page), 0) == 0
    begin = (pages + 1) * page - values.nbytes if at_end else page
    found = np.frombuffer(memory, values.dtype, values.size, begin).reshape(values.shape)
    found[...] = values
    return found
turns = (lambda w: w, lambda w: w[::-1], lambda w: w[:, ::-1], lambda w: w[..., ::-1])
rng = np.random.default_rng(0)
for d, dtype, at_end, n in itertools.product((1, 2, 3, 5, 9), ("f4", "f8"), (True, False), (2, 17, 40)):
    for channels, turn in itertools.product((1, 5, 19), turns):
        weight = rng.normal(size=(n, channels, d)).astype(dtype)
        views = turn(guarded(weight, at_end)), turn(weight)
        one, other = (reprune.select_filters(w, n - 1, ties="norm") for w in views)
        assert one.height == other.height and (one.labels == other.labels).all()
        one, other = (reprune.linkage(w.swapaxes(0, 1)) for w in views)
        assert (one == other).all()
for width in (2, 3, 5, 9):  # rows that overlap
    numbers = rng.normal(size=(60,))
    windows = (np.lib.stride_tricks.sliding_window_view(x, width) for x in (guarded(numbers, True), numbers))
    one, other = map(reprune.linkage, windows)
    assert (one == other).all()
"""
    run_code(program, check=True)


def test_unknown_instruction_set():
    before = _core.isa()
    assert not _core.set_isa("mmx")
    assert _core.isa() == before
