"""What compensation is worth on Fashion-MNIST, in one shot.

::

    python -m benchmarks.training.compensation --dense DIR --markdown docs/results/compensation.md
    python -m benchmarks.training.compensation --smoke

Dense networks are trained as in benchmarks.training.accuracy and kept in `--dense`. Each is pruned with equal
counts by every criterion, or with counts by a rule and equal FLOPs, and measured on all test images three
times: as it is, with the statistics of BatchNorm recomputed on the images, and compensated on them. The
images are the first of the training set, without labels. Every run is a line of `--records` as soon as it is
done; started again, the script goes on behind it.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import reprune
from benchmarks.training import fashion
from benchmarks.training.accuracy import spread
from benchmarks.training.criteria import choice, recompute_statistics
from reprune.bench.markdown import line, table
from reprune.files.atomic import write_text
from reprune.modules.copying import whole_copy

CRITERIA = ("REPrune, ties random", "random", "L1 (Torch-Pruning)", "BN gamma", "FPGM")
COVARIANCE = "covariance"
RULES = {"counts by BatchNorm": "bn", "counts by error": "error"}
BY_RULE = tuple(f"{name}, {rule}" for rule in RULES for name in ("REPrune", COVARIANCE))
"""Criteria whose counts are not the same in all blocks."""
CUTS = ("inner 0.5", "inner 0.25", "all 0.25")
"""Share of the inner channels of every block, or of the FLOPs with scope="all"."""
COUNTS = (32, 64, 1024)
WAYS = ("nothing", "BatchNorm", "compensated")


class Run(NamedTuple):
    """One line of the records."""

    cut: str
    criterion: str
    images: int
    seed: int


Records = dict[Run, dict[str, float]]


def all_runs(seeds: int) -> Iterator[Run]:
    """In the order in which they are made."""
    for seed in range(seeds):
        for cut in CUTS:
            criteria = CRITERIA if cut.startswith("inner") else CRITERIA[:2]  # the others score single layers
            yield from (Run(cut, criterion, 256, seed) for criterion in criteria)
    for seed in range(seeds):
        for cut in CUTS:
            yield from (Run(cut, criterion, 256, seed) for criterion in (COVARIANCE, *BY_RULE))
    for seed in range(seeds):
        for cut in CUTS[:2]:
            yield from (Run(cut, CRITERIA[0], images, seed) for images in COUNTS)


def target(cut: str, model: nn.Module) -> dict[str, Any]:
    """The arguments of `make_plan` that say how much is cut."""
    scope, share = cut.split()
    if scope == "all":
        return {"flops": float(share), "scope": "all", "rule": "uniform"}
    inner = {name: layer for name, layer in model.named_modules() if name.endswith("conv1")}
    return {"keep": {name: max(1, round(float(share) * conv.out_channels)) for name, conv in inner.items()}}


def plan_of(run: Run, model: nn.Module, example: Tensor, images: Tensor) -> reprune.PruningPlan:
    """Decide which channels stay."""
    how = target(run.cut, model)
    name, _, rule = run.criterion.partition(", ")
    if rule in RULES:
        if "keep" in how:
            plan = reprune.make_plan(model, example, **how)
            how = {"flops": plan.flops[1] / plan.flops[0]}
        how["rule"] = RULES[rule]
    if name == COVARIANCE:
        how["criterion"] = COVARIANCE
    elif rule not in RULES:
        how |= choice(run.criterion, model, run.seed)
    if name == COVARIANCE or how.get("rule") == "error":
        how["calibrate"] = images
    return reprune.make_plan(model, example, seed=run.seed, **how)


def result(run: Run, data: fashion.Fashion, dense: nn.Module, accuracy: float) -> dict[str, float]:
    """Prune once, and measure what is made of it in each way."""
    images = data.sized(data.train[0][: run.images])
    plan = plan_of(run, dense, data.example, images)
    small = whole_copy(dense)
    reprune.apply(plan, small)
    found = {"dense": accuracy, "nothing": data.accuracy(small)}
    norms = whole_copy(small)
    recompute_statistics(norms, [images])
    begun = time.process_time()
    report = reprune.compensate(dense, small, plan, images)
    spent = time.process_time() - begun
    compensated = data.accuracy(small)
    assert report.images == len(images)
    return {
        **found,
        "BatchNorm": data.accuracy(norms),
        "compensated": compensated,
        "seconds": spent,
        "flops": plan.flops[1] / plan.flops[0],
        "left": sum(bool(layer.reason) for layer in report.layers),
    }


def page(records: Records, budget: str) -> str:
    """The tables."""
    dense = {run.seed: result["dense"] for run, result in records.items()}
    lines = [
        "# Compensation: one shot, without training",
        "",
        f"`python -m benchmarks.training.compensation`: {budget}. Accuracy on the 10,000 test images in "
        "percent, mean ± standard deviation over the seeds; the dense networks have "
        f"{spread(list(dense.values()))}. The images are of the training set, without labels; no training "
        "follows. All criteria keep as many channels in each layer, but where the counts are said to be "
        "others: these leave as many FLOPs. The ridges that are tried were chosen while seeds 0 and 1 were "
        "looked at; the others ran once. What compensation is worth while a network is trained has a "
        "[page of its own](compensation_training.md).",
        "",
        *by_criterion(records),
        "",
        *by_images(records),
        "",
    ]
    return "\n".join(lines)


def by_criterion(records: Records) -> Iterator[str]:
    """One row for each cut and criterion."""
    yield "## Criteria"
    yield ""
    yield "On 256 images: pruned and nothing else; the statistics of BatchNorm recomputed; compensated. CPU"
    yield "time is that of compensation, on one thread of a machine with other work on it."
    yield ""
    yield from table(("kept", "FLOPs", "criterion", "seeds", *WAYS, "loss to dense", "CPU time"))
    for cut in CUTS:
        for criterion in (*CRITERIA, COVARIANCE, *BY_RULE):
            found = [r for run, r in records.items() if run[:3] == (cut, criterion, 256)]
            if found:
                yield line(
                    described(cut),
                    f"{100 * sum(r['flops'] for r in found) / len(found):.1f} %",
                    criterion,
                    str(len(found)),
                    *(spread([r[way] for r in found]) for way in WAYS),
                    spread([r["dense"] - r["compensated"] for r in found]),
                    f"{sum(r['seconds'] for r in found) / len(found):.1f} s",
                )


def by_images(records: Records) -> Iterator[str]:
    """One row for each number of images."""
    yield "## Number of images"
    yield ""
    yield f"{CRITERIA[0]}."
    yield ""
    yield from table(("images", "kept", "seeds", *WAYS[1:], "CPU time"))
    for images in sorted({*COUNTS, 256}):
        for cut in CUTS[:2]:
            found = [r for run, r in records.items() if run[:3] == (cut, CRITERIA[0], images)]
            if found:
                yield line(
                    str(images),
                    described(cut),
                    str(len(found)),
                    *(spread([r[way] for r in found]) for way in WAYS[1:]),
                    f"{sum(r['seconds'] for r in found) / len(found):.1f} s",
                )


def described(cut: str) -> str:
    """For people."""
    scope, share = cut.split()
    percent = f"{100 * float(share):.0f} %"
    return f"{percent} of the inner channels" if scope == "inner" else f'{percent} of the FLOPs, scope="all"'


def dense_network(data: fashion.Fashion, folder: Path, seed: int) -> nn.Module:
    """Of the folder, or trained and put there."""
    file = folder / f"dense{seed}.safetensors"
    if file.exists():
        return reprune.load(file, data.network(seed)).eval()
    model = data.network(seed)
    for _ in data.train_epochs(model, seed, None):
        pass
    reprune.save(model, file)
    return model.eval()


def main() -> None:
    """Make all runs that are not in the records yet, and write the page."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    fashion.arguments(parser, images=4000, side=14, epochs=100, until=60, width=24, stride=2, batch=64)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--dense", type=Path, default=Path("dense"), metavar="DIR", help="of dense networks")
    parser.add_argument("--records", type=Path, default=Path("compensation.jsonl"), metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = fashion.parsed(parser)
    options.seeds = 1 if options.smoke else options.seeds
    options.dense.mkdir(parents=True, exist_ok=True)
    data = fashion.Fashion(options)
    records: Records = {}
    if options.records.exists():
        lines = map(json.loads, options.records.read_text().splitlines())
        records = {Run(*each["run"]): each["result"] for each in lines if each["budget"] == str(data)}
    dense: dict[int, tuple[nn.Module, float]] = {}
    for run in all_runs(options.seeds):
        if run in records or run.images > options.images:
            continue
        if run.seed not in dense:
            model = dense_network(data, options.dense, run.seed)
            dense[run.seed] = model, data.accuracy(model)
        with torch.random.fork_rng():
            records[run] = result(run, data, *dense[run.seed])
        with options.records.open("a") as file:
            file.write(json.dumps({"run": run, "budget": str(data), "result": records[run]}) + "\n")
        print(run, records[run], flush=True)
    if options.markdown is None:
        print(page(records, str(data)))
    else:
        write_text(options.markdown, page(records, str(data)))


if __name__ == "__main__":
    main()
