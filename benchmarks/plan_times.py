"""How long a plan takes, beside Torch-Pruning's pruning. Written to docs/results/plan_times.md.

::

    python -m benchmarks.plan_times                          # an hour; goes on where it was stopped
    python -m benchmarks.plan_times --only resnet50 --again
    python -m benchmarks.plan_times --table                  # only writes the page again

Each network, with random weights, has a process of its own with one thread. There half of the channels are
pruned by reprune (trace, plan, certificate, application) and by Torch-Pruning (MagnitudePruner: its graph
and one step, without any certificate), in turns, on fresh networks; a first turn warms up. Times are medians
of processor time. Peaks are what either allocates at most besides (`memory.py`), over the memory of the
network, in a process of their own.

select     counts, clustering and everything else between trace and certificate
growth     planning without selection, by the number of convolutions: the exponent of its time
targets    ten targets of ResNet-50 on one trace, over ten selections and one trace
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import math
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import nn

import reprune
from benchmarks.memory import COUNTED, peak_of, size_of
from benchmarks.zoo.networks import Network
from reprune.bench import markdown
from reprune.files.atomic import write_text

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/results/plan_times.md"
ROWS = ROOT / "docs/results/plan_times.jsonl"
FIRST = "resnet50 mobilenet_v2 densenet121 vit_b_16 convnext_tiny regnet_y_8gf".split()
MORE = (
    "resnet18 vgg16_bn googlenet squeezenet1_1 mobilenet_v3_small efficientnet_b0 regnet_y_400mf "
    "shufflenet_v2_x1_0 swin_t timm/mobilenetv4_conv_small timm/repvgg_a0 timm/hrnet_w18_small "
    "timm/efficientnetv2_rw_t detector/ssdlite320_mobilenet_v3_large"
).split()
LAYERS = {"vit_b_16": "linear", "swin_t": "linear", "convnext_tiny": "all"}
SCOPES = {"timm/repvgg_a0": "all"}  # all of its channels meet others in an addition
MOST_BYTES = 2**33
"""Memory that a process may take: on some networks Torch-Pruning takes any amount."""
DEPTHS = ("resnet50", "resnet101", "resnet152", "1000 layers")
SPECIAL = ("growth", "targets")


def network_of(name: str) -> Network:
    """`resnet50`, `timm/repvgg_a0` or `detector/...`."""
    kind, _, own = name.rpartition("/")
    return Network(own, kind or "classifier")


def planned(model: nn.Module, example: Any, layers: str, scope: str) -> dict[str, float]:
    """Prune half of the channels of `model`; the seconds of each part."""
    marks: list[tuple[str, int, float]] = []
    begun = process_time()
    trace = reprune.trace(model, example)
    traced = process_time()
    plan = reprune.make_plan(
        model,
        trace,
        sparsity=0.5,
        rule="uniform",
        layers=layers,
        scope=scope,
        progress=lambda stage, done, total: marks.append((stage, done, process_time())),
    )
    decided = process_time()
    reprune.apply(plan, model)
    ended = process_time()
    at = [when for stage, _, when in marks if stage == "certify"]
    certify = sum(b - a for a, b in zip(at[::2], at[1::2], strict=True))
    return {
        "all": ended - begun,
        "trace": traced - begun,
        "select": decided - traced - certify,
        "certify": certify,
        "apply": ended - decided,
    }


def by_torch_pruning(model: nn.Module, example: Any) -> float:
    """Prune half of the channels of `model` by Torch-Pruning; its seconds."""
    import torch_pruning as tp

    begun = process_time()
    outputs = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 1000]
    importance = tp.importance.MagnitudeImportance(p=2)
    pruner = tp.pruner.MagnitudePruner(
        model, *example, importance=importance, pruning_ratio=0.5, ignored_layers=outputs
    )
    pruner.step()
    return process_time() - begun


def measured(name: str, rounds: int) -> dict[str, Any]:
    """Times, after a round that warms up."""
    ours: list[dict[str, float]] = []
    theirs: list[float] = []
    problem = ""
    for k in range(rounds + 1):
        took = planned(*prepared(name), LAYERS.get(name, "conv"), SCOPES.get(name, "internal"))
        ours += [took] if k else []
        if problem:
            continue
        try:
            seconds = by_torch_pruning(*prepared(name))
        except Exception as error:
            memory = isinstance(error, MemoryError) or "allocate memory" in str(error)
            problem = f"more than {MOST_BYTES >> 30} GiB" if memory else type(error).__name__
            continue
        theirs += [seconds] if k else []
    row: dict[str, Any] = {key: statistics.median(one[key] for one in ours) for key in ours[0]}
    row["parameters"] = sum(p.numel() for p in prepared(name)[0].parameters())
    return row | ({"problem": problem} if problem else {"theirs": statistics.median(theirs)})


def peaks(name: str) -> dict[str, float]:
    """Peaks over the memory of the network; a round before warms up."""
    found: dict[str, float] = {}
    by_reprune = functools.partial(
        planned, layers=LAYERS.get(name, "conv"), scope=SCOPES.get(name, "internal")
    )
    for what, prune in {"peak": by_reprune, "peak_theirs": by_torch_pruning}.items():
        for _ in range(2):
            model, example = prepared(name)
            size = size_of(model)  # as it is before
            try:
                found[what] = peak_of(functools.partial(prune, model, example)) / size
            except Exception:  # measured() tells which
                break
    return found


def prepared(name: str) -> tuple[nn.Module, Any]:
    """Return a network in evaluation mode, and what it is run on."""
    network = network_of(name)
    model = network.build().eval()
    example = network.example(model)
    gc.collect()
    return model, example


class Deep(nn.Sequential):
    """Residual blocks of two convolutions of 16 channels, a thousand layers deep."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 16, 3), *(Block() for _ in range(500)), nn.Conv2d(16, 4, 1))


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.two(torch.relu(self.norm(self.one(x))))


def growth(rounds: int) -> dict[str, Any]:
    """Seconds of trace and certificate, by depth."""
    found: dict[str, Any] = {}
    for name in DEPTHS:
        times = []
        for _ in range(rounds + 1):
            model = Deep().eval() if name == DEPTHS[-1] else network_of(name).build().eval()
            took = planned(model, (torch.randn(1, 3, 32, 32),), "conv", "internal")
            times.append(took["trace"] + took["certify"])
        layers = sum(isinstance(m, nn.Conv2d) for m in model.modules())
        found[name] = {"layers": layers, "seconds": statistics.median(times[1:])}
    xs, ys = ([math.log(one[key]) for one in found.values()] for key in ("layers", "seconds"))
    slope = statistics.linear_regression(xs, ys).slope
    return {"depths": found, "exponent": slope}


def targets() -> dict[str, Any]:
    """Ten targets of ResNet-50, FLOPs from 0.3 to 0.75, on one trace."""
    model = network_of("resnet50").build().eval()
    example = (torch.randn(1, 3, 224, 224),)
    for _ in range(2):
        begun, selecting = process_time(), 0.0
        trace = reprune.trace(model, example)
        traced = process_time() - begun
        for k in range(10):
            marks: list[tuple[str, float]] = []
            start = process_time()
            reprune.make_plan(
                model,
                trace,
                flops=0.3 + 0.05 * k,
                rule="uniform",
                scope="all",
                progress=lambda stage, done, total, marks=marks: marks.append((stage, process_time())),
            )
            selecting += next(when for stage, when in marks if stage == "certify") - start
        everything = process_time() - begun
    return {
        "all": everything,
        "trace": traced,
        "select": selecting,
        "ratio": everything / (traced + selecting),
    }


def page(rows: dict[str, dict[str, Any]]) -> str:
    head = ("network", "reprune", "trace / select / certify / apply", "Torch-Pruning", "ratio", "peaks")
    lines, failed = [], []
    for name in (*FIRST, *MORE):
        if (row := rows.get(name)) is None:
            continue
        parts = " / ".join(f"{row[part]:.2f}" for part in ("trace", "select", "certify", "apply"))
        fails = row.get("problem")
        failed += [f"{name} ({fails})"] if fails else []
        theirs = f"{row['theirs']:.2f} s" if not fails else "fails"
        ratio = f"{row['all'] / row['theirs']:.2f}" if not fails else "-"
        peak = f"{row['peak']:.2f} / " + (f"{row['peak_theirs']:.2f}" if not fails else "-")
        layers = f' (`layers="{LAYERS[name]}"`)' if name in LAYERS else ""
        layers += f' (`scope="{SCOPES[name]}"`)' if name in SCOPES else ""
        lines.append((f"{name}{layers}", f"{row['all']:.2f} s", parts, theirs, ratio, peak))
    text = [
        "# Plan times",
        "",
        "`python -m benchmarks.plan_times`: half of the channels of a network with random weights, pruned by "
        "reprune (trace, plan, certificate, application) and by Torch-Pruning (MagnitudePruner, which has no "
        "certificate), in turns in one process. Seconds are medians of the processor time of one thread, on "
        "a machine with other work on it, so ratios say more. The ratio is reprune's time over "
        "Torch-Pruning's; the peaks are the memory that either allocates besides the network, over that of "
        "the network, as malloc counts it, in a process of their own.",
        "",
        *markdown.table(head, lines, "lrlrrr"),
        "",
        f"Torch-Pruning fails on {', '.join(failed)}.",
    ]
    if "growth" in rows:
        depths = rows["growth"]["depths"].items()
        text += [
            "",
            "## Growth with depth",
            "",
            "Trace and certificate, images of 32 x 32. The time grows with the number of convolutions to the "
            f"power of {rows['growth']['exponent']:.2f}.",
            "",
            *markdown.table(
                ("network", "convolutions", "seconds"),
                [(name, str(one["layers"]), f"{one['seconds']:.2f}") for name, one in depths],
                "lrr",
            ),
        ]
    if "targets" in rows:
        row = rows["targets"]
        text += [
            "",
            "## Ten targets on one trace",
            "",
            f"Ten plans of ResNet-50 took {row['all']:.2f} s of processor time on one trace, certificates "
            f"included. That is {row['ratio']:.2f} times one trace ({row['trace']:.2f} s) and ten selections "
            f"({row['select']:.2f} s).",
        ]
    return "\n".join(text) + "\n"


def in_process(*words: str, **environment: str) -> dict[str, Any]:
    """Return what this benchmark prints with `words` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.plan_times", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, **environment}
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="*", default=[*FIRST, *SPECIAL, *MORE])
    parser.add_argument("--again", action="store_true", help="measure what was measured before")
    parser.add_argument("--table", action="store_true", help="write the page only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--peaks", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
        one = {"growth": lambda: growth(arguments.rounds), "targets": targets}.get(arguments.one)
        row = one() if one else measured(arguments.one, arguments.rounds)
        print(json.dumps({"name": arguments.one, **row}))
        return
    if arguments.peaks:
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
        print(json.dumps(peaks(arguments.peaks)))
        return
    lines = [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []
    rows = {row.pop("name"): row for row in lines}
    for name in [] if arguments.table else arguments.only:
        if name in rows and not arguments.again:
            continue
        try:
            row = in_process("--one", name, "--rounds", str(arguments.rounds))
            row |= {} if name in SPECIAL else in_process("--peaks", name, **COUNTED)
        except subprocess.CalledProcessError as error:
            print(f"{name}: {(error.stderr.strip() or str(error)).splitlines()[-1]}")
            continue
        del row["name"]
        rows[name] = row
        print(name, row, flush=True)
        write_text(ROWS, "".join(json.dumps({"name": n, **row}) + "\n" for n, row in rows.items()))
    write_text(PAGE, page(rows))


if __name__ == "__main__":
    main()
