"""Full dendrograms, one thread, CPU time: reprune, scipy, fastcluster.

Run: pytest benchmarks/bench_linkage.py
"""

import time

import fastcluster
import numpy as np
import pytest
from scipy.cluster import hierarchy

import reprune
from benchmarks import data

LIBRARIES = ("reprune", "scipy", "fastcluster")
SINGLE = [(n, d) for n in (10, 100, 1000, 5000) for d in (1, 2, 9, 32, 128)]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "1")


def check(Z, points, method):
    expected = fastcluster.linkage(points, method)
    np.testing.assert_allclose(Z[:, 2], expected[:, 2], rtol=1e-9)
    cut = expected[len(expected) // 2 :][:2, 2].mean()
    assert data.same_partition(reprune.cut(Z, cut), hierarchy.fcluster(expected, cut, "distance"))


@pytest.mark.benchmark(timer=time.process_time, min_rounds=2, max_time=1.0, warmup=False)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("b, n, d", [(512, 512, 9), (2048, 64, 9), (1024, 512, 1)])
def test_batch(benchmark, library, b, n, d):
    benchmark.group = f"batch of {b} problems of {n} x {d}, ward"
    points = np.random.default_rng(0).normal(size=(b, n, d))
    if library == "reprune":
        results = reprune.linkage(points)
        for k in (0, b // 2, b - 1):
            check(results[k], points[k], "ward")
        benchmark(reprune.linkage, points)
    else:
        link = hierarchy.linkage if library == "scipy" else fastcluster.linkage
        benchmark.pedantic(lambda: [link(p, "ward") for p in points], rounds=1)


@pytest.mark.benchmark(timer=time.process_time, min_rounds=2, max_time=0.5, warmup=False)
@pytest.mark.parametrize("library", ["reprune", "fastcluster"])
@pytest.mark.parametrize("method", ["ward", "single", "complete", "average"])
@pytest.mark.parametrize("n, d", SINGLE)
def test_single(benchmark, library, n, d, method):
    benchmark.group = f"one problem of {n} x {d}, {method}"
    points = np.random.default_rng(0).normal(size=(n, d))
    link = reprune.linkage if library == "reprune" else fastcluster.linkage
    check(link(points, method), points, method)
    benchmark(link, points, method)
