"""Does pruning make networks faster here? Half the FLOPs, and `latency=0.6`, of networks of torchvision.

    python -m benchmarks.latency [MODEL ...] [--batch 16] [--threads 1] [--only flops]

Random weights, channels_last, `round_to=8`, `rule="uniform"`. The full and the small network are
interleaved, run by run; a ratio is the median over neighbouring runs, with its quartiles. What `latency=0.6`
found is timed anew. Before that the small network's outputs are compared with those of the full one without
the channels that left (float64).
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from torch import nn
from torchvision import models

import reprune
from reprune.bench.markdown import table
from reprune.files.atomic import write_text
from reprune.targets.clock import compare

MODELS = ("resnet50", "vgg16_bn", "mobilenet_v2", "densenet121")
COLUMNS = ("network", "target", "FLOPs left", "parameters left", "time left", "quartiles", "times as fast")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--scope", default="all", choices=("internal", "all"))
    parser.add_argument("--flops", type=float, default=0.5)
    parser.add_argument("--latency", type=float, default=0.6)
    parser.add_argument("--only", choices=("flops", "latency"))
    parser.add_argument("--markdown", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name in arguments.models or MODELS:
        torch.manual_seed(0)
        model = models.get_model(name, weights=None).eval().to(memory_format=torch.channels_last)
        x = torch.randn(arguments.batch, 3, arguments.size, arguments.size)
        x = x.to(memory_format=torch.channels_last)
        for what in ("flops", "latency"):
            if arguments.only not in (None, what):
                continue
            target = {what: getattr(arguments, what)}
            rows.append(measured(name, model, x, target, arguments.scope))
            print(" | ".join(rows[-1]), flush=True)
    if arguments.markdown is not None:
        write_text(arguments.markdown, "\n".join(table(COLUMNS, rows)) + "\n")


def measured(
    name: str, model: nn.Module, x: torch.Tensor, target: dict[str, float], scope: str
) -> tuple[str, ...]:
    """One row: what `target` gives, and the time of it beside the full network's."""
    plan = reprune.make_plan(model, x, **target, scope=scope, rule="uniform", round_to=8)  # type: ignore[arg-type]
    small = copy.deepcopy(model)
    reprune.apply(plan, small)
    check(model, small, plan, x[:1, :, :64, :64])
    ratio = compare(small, model, ((x,), {}))
    ((what, value),) = target.items()
    flops, params = plan.flops, plan.params
    return (
        name,
        f"{what}={value:g}",
        f"{flops[1] / flops[0]:.3f}",
        f"{params[1] / params[0]:.3f}",
        f"{ratio.middle:.3f}",
        f"{ratio.low:.3f} to {ratio.high:.3f}",
        f"{1 / ratio.middle:.2f}",
    )


def check(model: nn.Module, small: nn.Module, plan: reprune.PruningPlan, x: torch.Tensor) -> None:
    """Raises unless `small` computes what `model` does without the channels that left.

    A channel is made to leave the full network by zeros in the weights that read it, those of the dimensions
    that `plan.slices` cuts beside the first.
    """
    masked = copy.deepcopy(model).double()
    tensors = dict(masked.named_parameters())
    with torch.no_grad():
        for tensor, dims in plan.slices.items():
            for dim, kept in dims.items():
                if dim > 0:
                    gone = torch.ones(tensors[tensor].shape[dim], dtype=torch.bool)
                    gone[torch.from_numpy(kept)] = False
                    tensors[tensor].transpose(0, dim)[gone] = 0
        expected, found = masked(x.double()), copy.deepcopy(small).double()(x.double())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


if __name__ == "__main__":
    main()
