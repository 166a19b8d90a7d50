"""What compensation is worth on other kinds of networks: VGG, MobileNetV2, a vision transformer.

::

    python -m benchmarks.training.networks --markdown docs/results/compensation_networks.md
    python -m benchmarks.training.networks --smoke

Small ones, trained for a short time on the images of benchmarks.training.compensation, pruned by REPrune with
the rule "uniform", and measured as they are, with the statistics of BatchNorm recomputed, and compensated;
and, with as many FLOPs left, by the rule "error", compensated. Of the transformer the hidden channels of the
feed-forward blocks are pruned.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import reprune
from benchmarks.training import fashion
from benchmarks.training.accuracy import spread
from benchmarks.training.criteria import recompute_statistics
from reprune.bench.markdown import line, table
from reprune.files.atomic import write_text
from reprune.modules.copying import whole_copy

IMAGES = 256
BY_ERROR = "counts by error, compensated"
WAYS = ("nothing", "BatchNorm", "compensated", BY_ERROR)


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs)]


def vgg() -> nn.Module:
    """Six convolutions, three poolings."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 24), (24, 24), (24, 48), (48, 48), (48, 96), (96, 96)):
        layers += [*conv(inputs, outputs), nn.ReLU()]
        if inputs == outputs:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(96, 10))


class Inverted(nn.Module):
    """Of MobileNetV2: wider inside, a depthwise convolution, no activation after it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        inner = 4 * inputs
        parts = [*conv(inputs, inner, 1), nn.ReLU6(), *conv(inner, inner, 3, stride, inner), nn.ReLU6()]
        self.body = nn.Sequential(*parts, *conv(inner, outputs, 1))
        self.same = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def mobilenet() -> nn.Module:
    """Six inverted residuals."""
    shapes = ((16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1), (32, 48, 1), (48, 48, 1))
    blocks = [Inverted(*shape) for shape in shapes]
    head = [*conv(48, 128, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(*conv(1, 16), nn.ReLU6(), *blocks, *head)


class Block(nn.Module):
    """Attention, feed-forward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.down(nn.functional.gelu(self.up(self.norms[1](x))))


class Transformer(nn.Module):
    """Three blocks of 64 channels over 49 patches."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.places = nn.Parameter(0.02 * torch.randn(1, 49, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(3)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT + self.places
        return self.head(self.norm(self.blocks(x)).mean(1))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[dict[str, Any]]]] = {
    "VGG": (vgg, [{"flops": 0.5}, {"flops": 0.25}]),
    "MobileNetV2": (mobilenet, [{"flops": 0.75}, {"flops": 0.5}]),
    "transformer": (
        Transformer,
        [{"sparsity": 0.5, "layers": "linear"}, {"sparsity": 0.75, "layers": "linear"}],
    ),
}


def results(
    data: fashion.Fashion, name: str, seed: int
) -> Iterator[tuple[tuple[str, str], dict[str, float]]]:
    """Train one network, and yield what each cut makes of it."""
    make, cuts = NETWORKS[name]
    torch.manual_seed(seed)
    dense = make()
    for _ in data.train_epochs(dense, seed, None):
        pass
    dense.eval()
    images = data.sized(data.train[0][:IMAGES])
    for cut in cuts:
        small, plan = reprune.prune(dense, data.example, rule="uniform", seed=seed, **cut)
        found = {"dense": data.accuracy(dense), "nothing": data.accuracy(small)}
        norms = whole_copy(small)
        recompute_statistics(norms, [images])
        begun = time.process_time()
        report = reprune.compensate(dense, small, plan, images)
        found["seconds"] = time.process_time() - begun
        found["left"] = sum(bool(layer.reason) for layer in report.layers) / max(1, len(report.layers))
        found |= {"BatchNorm": data.accuracy(norms), "compensated": data.accuracy(small)}
        flops = plan.flops[1] / plan.flops[0]
        like = {"flops": flops, "layers": cut.get("layers", "conv"), "seed": seed}
        found[BY_ERROR] = data.accuracy(
            reprune.prune(dense, data.example, rule="error", calibrate=images, **like)[0]
        )
        yield (name, f"{100 * flops:.0f} %"), found


def page(records: dict[tuple[str, str], list[dict[str, float]]], budget: str) -> str:
    """The table."""
    head = ("network", "FLOPs", "seeds", "dense", *WAYS, "layers left", "CPU time")
    lines = [
        "# Compensation of other networks",
        "",
        f"`python -m benchmarks.training.networks`: {budget}, {IMAGES} images for compensation, no training "
        "after it. Accuracy on the 10,000 test images in percent, mean ± standard deviation over the seeds.",
        "",
        *table(head),
    ]
    for (name, flops), found in records.items():
        shown = [spread([r[way] for r in found]) for way in ("dense", *WAYS)]
        left, seconds = (sum(r[key] for r in found) / len(found) for key in ("left", "seconds"))
        lines.append(line(name, flops, str(len(found)), *shown, f"{100 * left:.0f} %", f"{seconds:.1f} s"))
    return "\n".join([*lines, ""])


def main() -> None:
    """Train, prune and measure all, and write the page after each."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    fashion.arguments(parser, images=4000, side=14, epochs=15, until=1, batch=64)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = fashion.parsed(parser)
    data = fashion.Fashion(options)
    budget = f"{options.images:,} training images of 14 x 14, {options.epochs} epochs"
    records: dict[tuple[str, str], list[dict[str, float]]] = {}
    for seed in range(1 if options.smoke else options.seeds):
        for name in NETWORKS:
            for key, found in results(data, name, seed):
                records.setdefault(key, []).append(found)
                print(key, seed, found, flush=True)
            if options.markdown is not None:
                write_text(options.markdown, page(records, budget))
    if options.markdown is None:
        print(page(records, budget))


if __name__ == "__main__":
    main()
