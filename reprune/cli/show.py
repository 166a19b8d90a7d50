"""Run `reprune show FILE`: print what a pruned network's file holds."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import reprune

from ..plan import PruningPlan
from . import console as tables


def add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "show",
        parents=[common],
        help="show what a pruned network's file holds",
        description="Show what a pruned network's file holds.",
    )
    parser.add_argument(
        "file", metavar="FILE", type=Path, help="a file written by `reprune prune` or `reprune.save`"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Print the plan inside the file."""
    plan = reprune.read_plan(arguments.file)
    size = arguments.file.stat().st_size
    if arguments.json:
        json.dump({"file": str(arguments.file), "bytes": size} | plan_as_dict(plan), sys.stdout, indent=2)
        print()
        return
    tables.layers(plan, most=len(plan.keep))
    tables.skipped(plan)
    rows = [
        tables.before_after("FLOPs", *plan.flops, tables.count),
        tables.before_after("parameters", *plan.params, tables.count),
    ]
    tables.show(f"{arguments.file}: {tables.memory(size)}", ("", "before", "now", "left"), rows)
    for note in plan.notes:
        tables.say(f"Note: {note}.")


def plan_as_dict(plan: PruningPlan) -> dict[str, Any]:
    """Return the part of a command's JSON that describes the plan."""
    return {
        "flops": {"before": plan.flops[0], "after": plan.flops[1]},
        "parameters": {"before": plan.params[0], "after": plan.params[1]},
        "layers": {
            name: {"channels": plan.channels[name], "kept": [int(channel) for channel in kept]}
            for name, kept in plan.keep.items()
        },
        "skipped": dict(plan.skipped),
        "notes": list(plan.notes),
    }
