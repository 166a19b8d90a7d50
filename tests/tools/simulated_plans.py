"""Plans of torchvision's classifiers by the compiled GPU kernels, run in a simulator: those of the C++ core.

``python -m tests.tools.simulated_plans --minutes 60`` plans each network, the small first, with
``backend="triton"`` and with ``"cpp"``, ``scope="all"`` and ``layers="all"``, and compares the JSON. Each is
planned with the weights that torchvision draws and with weights of nine kinds in turn from layer to layer,
among them bfloat16 numbers, lattices, duplicates and zeros, whose merges tie. No network is begun after the
time. It ends with an error if a plan differs, and needs the PTX simulator that tests/test_ptx.py runs on.
"""

import argparse
import math
import os
import time
from unittest import mock

import torch

import reprune
from benchmarks.zoo.networks import networks
from reprune.kernels import select  # noqa: F401  # kernels are compiled ones if imported before TRITON_INTERPRET
from tests.helpers import nine_kinds
from tests.helpers.ptx import benchmarks, simulator

WEIGHTS = ("as drawn", "of nine kinds")
HOW = {"sparsity": 0.5, "scope": "all", "layers": "all", "rule": "uniform"}


def of_nine_kinds(model):
    """Weights of the next kind in every layer."""
    layers = [m for m in model.modules() if getattr(getattr(m, "weight", None), "ndim", 0) >= 2]
    kinds = list(nine_kinds.KINDS)
    with torch.no_grad():
        for number, layer in enumerate(layers):
            O, I, *kernel = layer.weight.shape
            points = nine_kinds.draw(kinds[number % len(kinds)], (I, O, math.prod(kernel)), number)
            layer.weight.copy_(torch.from_numpy(points).swapaxes(0, 1).reshape(layer.weight.shape))


def kernels_of(model):
    return sum(p.shape[0] * p.shape[1] for p in model.parameters() if p.ndim >= 2)


def planned(model, example, ptxsim, target):
    """Whether the kernels lead to the core's plan, and how many warp instructions they ran."""
    expected = reprune.make_plan(model, example, backend="cpp", **HOW).to_json()
    interpreter = mock.patch.dict(
        os.environ, TRITON_INTERPRET="1"
    )  # tensors of the CPU are taken for the GPU's
    with benchmarks()[2].Device(ptxsim, target) as device, interpreter:
        found = reprune.make_plan(model, example, backend="triton", **HOW).to_json()
    return found == expected, device.count()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=WEIGHTS, help="default: both")
    parser.add_argument("--target", default="sm_90", help="chip; default: sm_90")
    options = parser.parse_args()
    (ptxsim, _), begun, wrong, compared = simulator(), time.monotonic(), [], 0
    for network in networks("torchvision"):
        if network.kind != "classifier" or (options.only and network.name not in options.only):
            continue
        for kind in options.weights:
            if time.monotonic() - begun > 60 * options.minutes:
                continue
            model = network.build().eval()
            if kind == "of nine kinds":
                of_nine_kinds(model)
            start = time.monotonic()
            equal, instructions = planned(model, network.example(model, small=True), ptxsim, options.target)
            compared += 1
            wrong += [] if equal else [f"{network.name}, weights {kind}"]
            print(
                f"{network.name}, {kernels_of(model):,} kernels, weights {kind}: "
                f"{'equal' if equal else 'DIFFERS'}, {instructions / 1e6:,.0f} M warp instructions, "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )
    print(f"{compared} plans, {len(wrong)} differ")
    return "; ".join(wrong) or (0 if compared else "nothing was compared")


if __name__ == "__main__":
    raise SystemExit(main())
