"""Data and a check that the benchmarks share; other libraries and the numpy greedy are in reprune.bench."""

import numpy as np


def weights(shapes, seed=0):
    """float32 normal weights [O, I, d] of every layer (O, I, kernel side)."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((O, I, side * side), dtype=np.float32) for O, I, side in shapes]


def same_partition(a, b):
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))
