"""What the benchmarks measure against: scipy, fastcluster and plain numpy; and their data."""

import time

import numpy as np
from scipy.cluster import hierarchy

from reprune import reference

# layer shapes of the networks the figures are about, [O, I, kernel side], with how often each occurs
RESNET50 = [(64, 3, 7), (64, 64, 1), *[(64, 256, 1)] * 2, *[(64, 64, 3)] * 3, *[(256, 64, 1)] * 4]
RESNET50 += [(128, 256, 1), *[(128, 512, 1)] * 3, *[(128, 128, 3)] * 4, *[(512, 128, 1)] * 4, (512, 256, 1)]
RESNET50 += [
    (256, 512, 1),
    *[(256, 1024, 1)] * 5,
    *[(256, 256, 3)] * 6,
    *[(1024, 256, 1)] * 6,
    (1024, 512, 1),
]
RESNET50 += [
    (512, 1024, 1),
    *[(512, 2048, 1)] * 2,
    *[(512, 512, 3)] * 3,
    *[(2048, 512, 1)] * 3,
    (2048, 1024, 1),
]
VGG16 = [(64, 3, 3), (64, 64, 3), (128, 64, 3), (128, 128, 3), (256, 128, 3), *[(256, 256, 3)] * 2]
VGG16 += [(512, 256, 3), *[(512, 512, 3)] * 5]
WIDE = [(1024, 1024, 3)]
NETWORKS = {"resnet50": RESNET50, "vgg16": VGG16, "1024x1024x3x3": WIDE}


def weights(shapes, seed=0):
    """float32 normal weights [O, I, d] of every layer."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((O, I, side * side), dtype=np.float32) for O, I, side in shapes]


def numpy_coverage(labels, keep, key):
    """The greedy in numpy: gains by one gather per pick. Ties by the same hash, so picks can be compared."""
    O = len(labels)
    start = np.concatenate([[0], np.cumsum(labels.max(axis=0) + 1)])
    flat = labels + start[:-1]
    uncovered, left = np.ones(start[-1], dtype=bool), np.arange(O)
    order = np.empty(keep, np.int64)
    for step in range(keep):
        gain = uncovered[flat[left]].sum(axis=1)
        tied = left[gain == gain.max()]
        order[step] = tied[reference.tie_values(key, step, tied).argmin()]
        uncovered[flat[order[step]]] = False
        left = left[left != order[step]]
    return order


def same_partition(a, b):
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


def cpu_seconds(call):
    """CPU time of one call, and what it returned."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def scipy_ward(points):
    return hierarchy.linkage(points, "ward")
