"""Maximum cluster coverage, one thread, CPU time: reprune against numpy.

Run: pytest benchmarks/bench_coverage.py
"""

import time

import numpy as np
import pytest

import reprune
from reprune.bench import checking
from reprune.bench.peers import numpy_coverage
from reprune.clustering import reference


@pytest.mark.benchmark(timer=time.process_time, min_rounds=3, max_time=1.0, warmup=False)
@pytest.mark.parametrize("library", ["reprune", "numpy"])
@pytest.mark.parametrize("O, I", [(512, 512), (512, 1024), (2048, 512)])
def test_coverage(benchmark, library, O, I):
    benchmark.group = f"labels {O} x {I}, keep half"
    # labels as a layer has them: clusters of normal kernels
    weight = np.random.default_rng(0).standard_normal((O, I, 9), dtype=np.float32)
    labels = np.ascontiguousarray(reprune.select_filters(weight, O // 2).labels)
    order, gains = reprune.max_coverage(labels, O // 2)
    checking.picks(labels, order, gains, "reprune")
    if library == "reprune":
        benchmark(reprune.max_coverage, labels, O // 2)
    else:
        key = reference.tie_key(0, "")
        expected = benchmark.pedantic(numpy_coverage, (labels, O // 2, key), rounds=1)
        np.testing.assert_array_equal(order, expected)
