"""Are the clusters those of scipy, on every channel of whole networks?

    python benchmarks/exact.py       # ResNet-18, VGG-16, a layer of 1024x1024x3x3, ResNet-50: twenty minutes
    python benchmarks/exact.py resnet18 --sparsity 0.5

For normal and heavy-tailed (Student's t, 3 degrees of freedom) float32 weights and each sparsity, all layers
are selected by the C++ core. Each cut height must agree with scipy's float64 dendrograms to 1e-12, relative,
and the clusters of every channel must be scipy's at that height. The first that is not ends the run with an
error.
"""

from __future__ import annotations

import argparse
from time import perf_counter

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage

from reprune.bench.checking import OURS, WrongAnswer, first_appearance
from reprune.bench.shapes import NETWORKS, Layer, network
from reprune.selection import LayerProblem, select_layers

LARGE = "1024x1024x3x3"
CHOICES = ("resnet18", "vgg16", LARGE, "resnet50")
DATA = ("normal", "heavy")


def weights(layer: Layer, data: str, rng: np.random.Generator) -> np.ndarray:
    """Kernels [I, O, d], float32."""
    shape = (layer.I, layer.O, layer.d)
    values = rng.standard_normal(shape) if data == "normal" else rng.standard_t(3, shape)
    return values.astype(np.float32)


def check(layer: Layer, table: np.ndarray, sparsities: list[float]) -> int:
    """Number of partitions compared, all of them equal to scipy's."""
    trees = [linkage(points.astype(np.float64), "ward") for points in table]
    compared = 0
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
            if not np.array_equal(found.labels[:, j], expected):
                raise WrongAnswer(f"{layer.name} {layer}, channel {j}: the clusters are not those of scipy")
            compared += 1
    return compared


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
            compared = sum(check(layer, weights(layer, data, rng), arguments.sparsity) for layer in layers)
            took = perf_counter() - start
            print(f"{name}, {data}: {compared} of {compared} are scipy's ({took:.0f} s)", flush=True)


if __name__ == "__main__":
    main()
