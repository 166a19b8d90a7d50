"""Are the clusters those of scipy, on every channel of whole networks?

    python -m benchmarks.exact       # ResNet-18, VGG-16, a layer of 1024x1024x3x3, ResNet-50: twenty minutes
    python -m benchmarks.exact resnet18 --sparsity 0.5

For normal and heavy-tailed (Student's t, 3 degrees of freedom) float32 weights and each sparsity, all layers
are selected by the C++ core. Each cut height must agree with scipy's float64 dendrograms to 1e-12, relative,
and the clusters of every channel must be scipy's at that height. Where gaps are exactly equal, as happens
among the float32 numbers of 1x1 kernels, more than one answer is right: such a channel is merged again, step
by step, and every step must have been the cheapest there was. The first that is wrong ends the run with an
error.
"""

from __future__ import annotations

import argparse
from time import perf_counter

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

import reprune
from reprune.bench.checking import OURS, WrongAnswer, first_appearance
from reprune.bench.shapes import NETWORKS, Layer, network
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers

LARGE = "1024x1024x3x3"
CHOICES = ("resnet18", "vgg16", LARGE, "resnet50")
DATA = ("normal", "heavy")


def weights(layer: Layer, data: str, rng: np.random.Generator) -> np.ndarray:
    """Kernels [I, O, d], float32."""
    shape = (layer.I, layer.O, layer.d)
    values = rng.standard_normal(shape) if data == "normal" else rng.standard_t(3, shape)
    return values.astype(np.float32)


def replay(points: np.ndarray, tree: np.ndarray) -> bool:
    """Whether every merge of `tree` was as cheap as any, by the definition of Ward's cost, in float64."""
    n = len(points)
    mean = np.concatenate([points, np.empty_like(points[1:])])
    size = np.concatenate([np.ones(n), np.zeros(n - 1)])
    cost = np.full((2 * n - 1, 2 * n - 1), np.inf)
    for k in range(2 * n - 1):
        if k >= n:
            a, b = tree[k - n, :2].astype(int)
            if not cost[a, b] <= cost.min() * (1 + OURS):
                return False
            size[k] = size[a] + size[b]
            mean[k] = (size[a] * mean[a] + size[b] * mean[b]) / size[k]
            for gone in (a, b):
                size[gone] = 0
                cost[gone, :] = cost[:, gone] = np.inf
        others = np.flatnonzero(size[:k])
        shares = size[others] * size[k] / (size[others] + size[k])
        cost[k, others] = shares * ((mean[others] - mean[k]) ** 2).sum(axis=1)
        cost[others, k] = cost[k, others]
    return True


def right_among_ties(points: np.ndarray, labels: np.ndarray, height: float) -> bool:
    """Whether the labels are those of a dendrogram that the greedy algorithm may give."""
    tree = reprune.linkage(points)
    return np.array_equal(reprune.cut(tree, height), labels) and replay(points, tree)


def check(layer: Layer, table: np.ndarray, sparsities: list[float]) -> np.ndarray:
    """Number of partitions compared, and of those that are not scipy's because of ties."""
    trees = [linkage(points.astype(np.float64), "ward") for points in table]
    compared = tied = 0
    for sparsity in sparsities:
        keep = layer.O - round(layer.O * sparsity)
        if keep == layer.O:
            continue
        (found,) = select_layers([LayerProblem(layer.name, (table,), keep)])
        truth = max(tree[layer.O - keep - 1, 2] for tree in trees)
        if abs(found.height - truth) > OURS * truth:
            raise WrongAnswer(f"{layer.name} {layer}: cut at {found.height!r}; scipy at {truth!r}")
        for j, tree in enumerate(trees):
            expected = first_appearance(fcluster(tree, truth * (1 + 2 * OURS), "distance"))
            compared += 1
            if np.array_equal(found.labels[:, j], expected):
                continue
            tied += 1
            if not right_among_ties(table[j].astype(np.float64), found.labels[:, j], found.height):
                raise WrongAnswer(f"{layer.name} {layer}, channel {j}: the clusters are not those of scipy")
    return np.array([compared, tied])


def main() -> None:
    """Checks the networks that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=CHOICES, help=f"of {', '.join(CHOICES)}; default all")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.3, 0.5, 0.7])
    arguments = parser.parse_args()
    unknown = set(arguments.networks) - {*NETWORKS, LARGE}
    if unknown:
        parser.error(f"networks: expected some of {', '.join(CHOICES)}; got {', '.join(sorted(unknown))}")
    for name in arguments.networks:
        layers = [Layer("layer", 1024, 1024, (3, 3))] if name == LARGE else network(name)
        for data in DATA:
            rng = np.random.default_rng(0)
            start = perf_counter()
            compared, tied = sum(
                check(layer, weights(layer, data, rng), arguments.sparsity) for layer in layers
            )
            took = perf_counter() - start
            ties = f" ({tied} of them tied: right by replay)" if tied else ""
            print(f"{name}, {data}: {compared} partitions are right{ties}, {took:.0f} s", flush=True)


if __name__ == "__main__":
    main()
