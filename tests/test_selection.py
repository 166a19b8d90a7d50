import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy

import reprune
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers
from tests.helpers import oracles

BACKENDS = ("reference", "cpp")


def assert_selection(sel, tables, keep):
    """Tables [I, O, d]: heights and clusters are scipy's, every pick is a maximum, counts add up."""
    O, labels, column = tables[0].shape[1], np.asarray(sel.labels), 0
    for table, height in zip(tables, sel.heights, strict=True):
        trees = [hierarchy.linkage(points.astype(np.float64), "ward") for points in table]
        cut = max(Z[O - keep - 1, 2] for Z in trees)
        np.testing.assert_allclose(height, cut, rtol=1e-12)
        for Z in trees:
            expected = oracles.canonical(hierarchy.fcluster(Z, cut * (1 + 1e-11), "distance"))
            np.testing.assert_array_equal(labels[:, column], expected)
            column += 1
    assert column == labels.shape[1]
    np.testing.assert_array_equal(sel.clusters, labels.max(axis=0) + 1)
    assert max(sel.clusters) <= keep
    oracles.assert_greedy_cover(labels, np.asarray(sel.order), np.asarray(sel.gains))
    np.testing.assert_array_equal(sel.keep, np.sort(sel.order))
    assert len(sel.keep) == keep
    assert sel.coverage == sum(sel.gains) / sum(sel.clusters)


def assert_equal(one, other):
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["normal", "heavy", "duplicates"]),
    O=st.integers(2, 24),
    I=st.integers(1, 6),
    side=st.sampled_from([(), (1, 1), (3, 3), (2,)]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_a_layer_is_selected_as_by_the_reference(kind, O, I, side, seed, data):
    keep = data.draw(st.integers(1, O - 1))
    weight = oracles.draw_points(kind, O * I, int(np.prod(side)), seed).reshape(O, I, *side)
    table = weight.reshape(O, I, -1).transpose(1, 0, 2)
    sel = reprune.select_filters(weight, keep, seed=seed, name="conv", backend="cpp")
    if kind != "duplicates" or np.unique(weight.reshape(O, -1), axis=0).shape[0] == O:
        assert_selection(sel, [table], keep)
    other = reprune.select_filters(weight, keep, seed=seed, name="conv", backend="reference")
    np.testing.assert_array_equal(sel.labels, other.labels)
    np.testing.assert_array_equal(sel.order, other.order)
    np.testing.assert_array_equal(sel.gains, other.gains)
    np.testing.assert_allclose(sel.height, other.height, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ties", ["random", "norm"])
@pytest.mark.parametrize(
    "shape", [(64, 16, 3, 3), (96, 10, 1, 1), (32, 3, 7, 7), (48, 5, 5, 5), (130, 2, 3, 1)]
)
def test_layers_of_networks(shape, ties, dtype):
    weight = np.random.default_rng(sum(shape)).normal(size=shape).astype(dtype)
    O, I = shape[:2]
    for keep in (1, O // 3, O // 2, O - 1):
        sel = reprune.select_filters(weight, keep, ties=ties)
        assert_selection(sel, [weight.reshape(O, I, -1).transpose(1, 0, 2)], keep)
        other = reprune.select_filters(weight, keep, ties=ties, backend="reference")
        np.testing.assert_array_equal(sel.order, other.order)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_group_of_several_tables_is_selected_as_one(backend):
    rng = np.random.default_rng(3)
    tables = tuple(rng.normal(size=(I, 20, d)).astype(np.float32) for I, d in [(4, 9), (3, 1), (1, 25)])
    (sel,) = select_layers([LayerProblem("group", tables, 7)], backend=backend)
    assert_selection(sel, tables, 7)
    with pytest.raises(ValueError, match="3 tables of kernels; see heights"):
        _ = sel.height


def test_tables_may_be_views():
    weight = np.random.default_rng(0).normal(size=(20, 12, 3, 3)).astype(np.float32)
    views = [
        weight.reshape(20, 12, 9).transpose(1, 0, 2),
        weight.reshape(20, 12, 9)[::-1, ::2].transpose(1, 0, 2),
        np.asfortranarray(weight.reshape(20, 12, 9)).transpose(1, 0, 2),
        weight.reshape(20, 12, 9)[:, 3:5, ::3].transpose(1, 0, 2),
    ]
    found = select_layers([LayerProblem("x", (v,), 9) for v in views])
    for view, sel in zip(views, found, strict=True):
        assert_equal(sel, *select_layers([LayerProblem("x", (view.copy(),), 9)]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_keeping_all_needs_no_clusters(backend):
    sel = reprune.select_filters(np.zeros((6, 3, 3, 3)), 6, backend=backend)
    assert sel.keep.tolist() == sel.order.tolist() == list(range(6))
    assert sel.coverage == 1
    assert sel.height == -np.inf
    assert sel.clusters.tolist() == [6] * 3
    assert sel.labels.shape == (6, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_filters_alike(backend):
    sel = reprune.select_filters(np.ones((8, 4, 3, 3), np.float32), 3, backend=backend)
    assert sel.height == 0
    assert sel.clusters.tolist() == [1] * 4
    assert sel.gains.tolist() == [4, 0, 0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_progress_counts_layers_and_its_errors_end_the_work(backend):
    table = np.random.default_rng(0).normal(size=(2, 10, 4))
    problems = [LayerProblem(str(k), (table,), keep) for k, keep in enumerate([5, 10, 3, 2])]
    seen = []
    select_layers(problems, progress=seen.append, backend=backend)
    assert seen == sorted(set(seen))
    assert seen[0] == 1  # the layer that keeps all its filters
    assert seen[-1] == 4

    def stop(count):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        select_layers(problems, progress=stop, backend=backend)
    assert select_layers([], progress=seen.append, backend=backend) == []


def test_torch_in_torch_out():
    weight = torch.randn(24, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    sel = reprune.select_filters(weight.requires_grad_(), 10, seed=4)
    for field in ("keep", "order", "gains", "labels", "clusters"):
        assert isinstance(getattr(sel, field), torch.Tensor)
    assert_equal(sel, reprune.select_filters(weight.detach().numpy(), 10, seed=4))
    assert "keep 10 of 24 filters, 6 channels" in repr(sel)
    assert isinstance(sel.coverage, float)
    half = reprune.select_filters(weight.detach().bfloat16(), 10)
    assert_equal(half, reprune.select_filters(weight.detach().bfloat16().double(), 10))


@pytest.mark.parametrize("threads", ["1", "2", "7"])
def test_threads_do_not_change_the_result(threads, monkeypatch):
    weight = oracles.draw_points("heavy", 40 * 33, 9, seed=8).reshape(40, 33, 3, 3)
    expected = reprune.select_filters(weight, 20)
    monkeypatch.setenv("REPRUNE_NUM_THREADS", threads)
    assert_equal(reprune.select_filters(weight, 20), expected)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"weight": np.ones(4)}, ValueError, r"weight: expected shape \[O, I, ...\]"),
        ({"weight": np.ones((4, 0, 3, 3))}, ValueError, "weight: expected shape .* none of them 0"),
        ({"weight": np.full((4, 2), np.nan)}, ValueError, "weight: expected finite numbers"),
        ({"weight": np.ones((4, 2), complex)}, TypeError, "weight: expected real numbers"),
        ({"keep": 0}, ValueError, "keep: expected an integer from 1 to 4; got 0"),
        ({"keep": 5}, ValueError, "keep: expected an integer from 1 to 4; got 5"),
        ({"ties": "best"}, ValueError, "ties: expected one of random, norm; got 'best'"),
        ({"seed": "x"}, TypeError, "seed: expected an integer; got 'x'"),
        ({"backend": "gpu"}, ValueError, "backend: expected one of auto, reference, cpp, triton; got 'gpu'"),
    ],
)
def test_errors(change, error, message):
    with pytest.raises(error, match=message):
        reprune.select_filters(**({"weight": np.eye(4, 3), "keep": 2} | change))


@pytest.mark.parametrize("keep", [1, 4, 5])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("of", [np.asarray, torch.from_numpy])
def test_what_is_returned_is_the_callers(of, channels, keep):
    """Arrays that can be written to, and do not change with each other or with the weight."""
    weight = np.random.default_rng(0).normal(size=(5, channels, 3))
    sel = reprune.select_filters(of(weight), keep)
    found = [np.asarray(part) for part in (sel.keep, sel.order, sel.gains, sel.labels, sel.clusters)]
    before = [part.copy() for part in (*found, weight)]
    for k, part in enumerate(found):
        part += 1
        others = [
            (one, was) for j, (one, was) in enumerate(zip((*found, weight), before, strict=True)) if j != k
        ]
        assert all(np.array_equal(one, was) for one, was in others)
        part -= 1
