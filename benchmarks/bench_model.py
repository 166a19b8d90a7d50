"""Selection on all layers of a network: clusters, cut and coverage at half of the filters.

Run: pytest benchmarks/bench_model.py. Weights are float32 and normal, one-thread figures CPU time. The peers
do the same by scipy or fastcluster (the faster of its `linkage` and `linkage_vector`), scipy's `fcluster` and
a greedy in numpy, on a sample of the channels of each shape, scaled: all of ResNet-50 takes them minutes.
"""

import time

import fastcluster
import numpy as np
import peers
import pytest
from scipy.cluster import hierarchy

from reprune import reference
from reprune.selection import LayerProblem, select_layers

CHANNELS = 6  # sampled per shape


def problems_of(shapes):
    return [
        LayerProblem(str(k), (w.transpose(1, 0, 2),), len(w) // 2)
        for k, w in enumerate(peers.weights(shapes))
    ]


def peer_seconds(problems, selections):
    """(scipy, fastcluster) CPU seconds for the same work; checks partitions and picks on the way."""
    seconds, known = np.zeros(2), {}
    for problem, sel in zip(problems, selections, strict=True):
        (table,) = problem.tables
        if table.shape not in known:
            sample = np.linspace(0, len(table) - 1, min(CHANNELS, len(table))).astype(int)
            spent = np.zeros(4)  # scipy, fastcluster twice, fcluster
            for j in sample:
                points = table[j].astype(np.float64)
                tree = None
                for k, link in enumerate(
                    (hierarchy.linkage, fastcluster.linkage, fastcluster.linkage_vector)
                ):
                    cpu, Z = peers.cpu_seconds(lambda link=link, points=points: link(points, "ward"))
                    spent[k] += cpu
                    tree = Z if tree is None else tree
                height = sel.height * (1 + 1e-12)
                cpu, flat = peers.cpu_seconds(
                    lambda tree=tree, height=height: hierarchy.fcluster(tree, height, "distance")
                )
                spent[3] += cpu
                assert peers.same_partition(sel.labels[:, j], flat)
            spent *= len(table) / len(sample)
            few = min(problem.keep, 24)  # every pick costs the same
            labels, key = np.ascontiguousarray(sel.labels), reference.tie_key(0, problem.name)
            cpu, order = peers.cpu_seconds(
                lambda labels=labels, few=few, key=key: peers.numpy_coverage(labels, few, key)
            )
            np.testing.assert_array_equal(order, sel.order[:few])
            rest = spent[3] + cpu * problem.keep / few
            known[table.shape] = spent[0] + rest, min(spent[1], spent[2]) + rest
        seconds += known[table.shape]
    return seconds


@pytest.mark.benchmark(timer=time.process_time, warmup=False)
@pytest.mark.parametrize("network", peers.NETWORKS)
def test_one_thread(benchmark, network, monkeypatch):
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "1")
    problems = problems_of(peers.NETWORKS[network])
    selections = select_layers(problems)
    scipy, fast = peer_seconds(problems, selections)
    benchmark.pedantic(select_layers, (problems,), rounds=5)
    ours = benchmark.stats.stats.min
    benchmark.extra_info |= {
        "scipy_s": round(scipy, 2),
        "fastcluster_s": round(fast, 2),
        "times_scipy": round(scipy / ours, 1),
        "times_fastcluster": round(fast / ours, 1),
    }
    print(f"\n{network}: {ours:.3f} s, {scipy / ours:.0f} x scipy, {fast / ours:.0f} x fastcluster")


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("network", ["resnet50", "vgg16"])
def test_wall_time(benchmark, network, threads, monkeypatch):
    benchmark.group = f"{network}, wall time"
    monkeypatch.setenv("REPRUNE_NUM_THREADS", threads)
    problems = problems_of(peers.NETWORKS[network])
    benchmark.pedantic(select_layers, (problems,), rounds=5, warmup_rounds=1)


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


@pytest.mark.benchmark(timer=time.process_time, warmup=False)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(512, 128, 3), (2048, 128, 1)], ids=str)
def test_no_cliff(benchmark, shape, kind, monkeypatch):
    benchmark.group = f"{shape}, awkward values"
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "1")
    weight = KINDS[kind](peers.weights([shape])[0], np.random.default_rng(1)).astype(np.float32)
    problem = LayerProblem("x", (weight.transpose(1, 0, 2),), len(weight) // 2)
    benchmark.pedantic(select_layers, ([problem],), rounds=3)


@pytest.mark.benchmark(timer=time.process_time, warmup=False)
@pytest.mark.parametrize("n", [256, 512, 1024, 2048])
@pytest.mark.parametrize("side", [1, 3])
def test_growth(benchmark, n, side, monkeypatch):
    benchmark.group = f"O filters, 64 channels, {side} x {side}"
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "1")
    (weight,) = peers.weights([(n, 64, side)])
    problem = LayerProblem("x", (weight.transpose(1, 0, 2),), n // 2)
    benchmark.pedantic(select_layers, ([problem],), rounds=5)
