"""Selection on all layers of a network: clusters, cut and coverage at half of the filters.

Run: pytest benchmarks/bench_model.py. Weights are float32 and normal, one-thread figures CPU time; every
answer is checked before it is timed. Ratios against scipy and fastcluster, taken in turns in one run, are
what `reprune bench selection` prints.
"""

import time

import numpy as np
import pytest

from benchmarks import data
from reprune.bench import checking, shapes
from reprune.bench.selection import check
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers

CHECK = 5.0  # seconds for comparing channels with scipy


def problems_of(layers):
    weights = data.weights([(layer.O, layer.I, layer.side[0]) for layer in layers])
    return [
        LayerProblem(layer.name, (weight.transpose(1, 0, 2),), layer.keep)
        for layer, weight in zip(layers, weights, strict=True)
    ]


def checked(name):
    """The layers of a network as problems, after their answer was found right."""
    layers = shapes.network(name) if name in shapes.NETWORKS else [shapes.Layer(name, 1024, 1024, (3, 3))]
    problems = problems_of(layers)
    check(name, problems, select_layers(problems), CHECK)
    return problems


@pytest.mark.benchmark(timer=time.process_time, warmup=False)
@pytest.mark.parametrize("network", [*shapes.NETWORKS, "1024x1024x3x3"])
def test_one_thread(benchmark, network, monkeypatch):
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "1")
    benchmark.pedantic(select_layers, (checked(network),), rounds=5)


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("network", ["resnet50", "vgg16"])
def test_wall_time(benchmark, network, threads, monkeypatch):
    benchmark.group = f"{network}, wall time"
    monkeypatch.setenv("REPRUNE_NUM_THREADS", threads)
    benchmark.pedantic(select_layers, (checked(network),), rounds=5, warmup_rounds=1)


KINDS = {
    "normal": lambda w, rng: w,
    "all equal": lambda w, rng: np.full_like(w, 0.3),
    "half zero": lambda w, rng: w * (rng.random(len(w)) < 0.5)[:, None, None],
    "geometric": lambda w, rng: (np.exp2(-np.arange(len(w)))[:, None, None] * np.sign(w)).astype(np.float32),
    "16 levels": lambda w, rng: np.round(np.clip(w, -2, 1.75) * 4) / 4,
    "times 1e-30": lambda w, rng: w * np.float32(1e-30),
    "times 1e15": lambda w, rng: w * np.float32(1e15),
    "plus 100": lambda w, rng: w + 100,
}
UNIQUE = {"normal", "times 1e-30", "times 1e15"}  # no ties: scipy's partition is the only one


@pytest.mark.benchmark(timer=time.process_time, warmup=False)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(512, 128, 3), (2048, 128, 1)], ids=str)
def test_no_cliff(benchmark, shape, kind, monkeypatch):
    benchmark.group = f"{shape}, awkward values"
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "1")
    weight = KINDS[kind](data.weights([shape])[0], np.random.default_rng(1)).astype(np.float32)
    problem = LayerProblem("x", (weight.transpose(1, 0, 2),), len(weight) // 2)
    (found,) = select_layers([problem])
    if kind in UNIQUE:
        check(kind, [problem], [found], CHECK)
    else:  # ties: partitions are not unique; the tests replay the merges of their dendrograms
        assert found.clusters.max() <= problem.keep
        checking.picks(found.labels, found.order, found.gains, kind)
    benchmark.pedantic(select_layers, ([problem],), rounds=3)


@pytest.mark.benchmark(timer=time.process_time, warmup=False)
@pytest.mark.parametrize("n", [256, 512, 1024, 2048])
@pytest.mark.parametrize("side", [1, 3])
def test_growth(benchmark, n, side, monkeypatch):
    benchmark.group = f"O filters, 64 channels, {side} x {side}"
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "1")
    (problem,) = problems_of([shapes.Layer("x", n, 64, (side, side))])
    check(str(n), [problem], select_layers([problem]), CHECK)
    benchmark.pedantic(select_layers, ([problem],), rounds=5)
