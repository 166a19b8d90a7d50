"""Run `reprune demo`: train a network on real images, prune it and measure it."""

import argparse
import json
import sys
from pathlib import Path

from .. import demo
from ..demo import Report
from ..timings import UNTRUSTED
from . import console as tables
from .progress import Stages


def add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "demo",
        parents=[common],
        help="train a small network on real images, prune half of it while it trains, and measure",
        description="Train a small residual network on 5,000 digits of MNIST, train it again while pruning "
        "half of its FLOPs, and measure both. It takes about two minutes and at most five; on a slow machine "
        "it trains less.",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("reprune-demo"), metavar="FOLDER", help="default: %(default)s"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="a trial run of two epochs, not a result")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the demo and show what it measured."""
    with Stages() as stages:
        report = demo.run(arguments.out, seed=arguments.seed, quick=arguments.quick, progress=stages)
    if arguments.json:
        json.dump(report.to_dict(), sys.stdout, indent=2)
        print()
    else:
        show_report(report)


def show_report(report: Report) -> None:
    """Print the tables of the demo."""
    tables.show(
        "Pruned while training",
        ("epoch", "channels kept", "regrown", "coverage", "FLOPs left", "after regrowth", "event time"),
        [
            (
                str(event.epoch),
                str(sum(event.kept.values())),
                str(sum(event.regrown.values())),
                tables.percent(event.coverage),
                tables.percent(event.flops),
                tables.percent(event.flops_regrown),
                tables.duration(event.seconds),
            )
            for event in report.history
        ],
    )
    dense, small = report.dense, report.small
    rows = [
        ("accuracy on 1,000 test images", tables.percent(dense.accuracy), tables.percent(small.accuracy), ""),
        ("epochs trained", str(dense.epochs), str(small.epochs), ""),
        ("images to train", str(dense.images), str(small.images), ""),
        tables.before_after("time to train", dense.training_seconds, small.training_seconds, tables.duration),
        tables.before_after("FLOPs of an image", dense.flops, small.flops, tables.count),
        tables.before_after("parameters", dense.parameters, small.parameters, tables.count),
        tables.before_after("file size", dense.file_bytes, small.file_bytes, tables.memory),
        *(
            tables.before_after(
                f"latency, batch {batch}" + (f", {UNTRUSTED}" if batch in report.doubtful else ""),
                seconds,
                small.latency[batch],
                tables.milliseconds,
            )
            for batch, seconds in dense.latency.items()
        ),
    ]
    tables.show(f"Measured here, in {report.seconds:.0f} s", ("", "dense", "pruned", "left"), rows)
    shot = report.one_shot
    tables.say(
        f"Pruned in one shot to {tables.percent(shot.flops / dense.flops)} of the FLOPs, without training: "
        f"accuracy {tables.percent(shot.accuracy)}, compensated on {shot.images} images in "
        f"{shot.seconds:.1f} s ({tables.percent(shot.accuracy_before)} without)."
    )
    for note in report.notes:
        tables.say(note)
    same = "gives the same outputs to the last bit" if report.same_after_reload else "GIVES OTHER OUTPUTS"
    tables.say(f"The file of the small network, loaded into a fresh one, {same}.")
    for what, path in report.files.items():
        tables.say(f"  {path}  {what}")
