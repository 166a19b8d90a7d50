"""Compare plans of several targets, `reprune prune MODEL --flops 0.3,0.5,0.7`: one trace, no file."""

import argparse
import json
import math
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

import reprune

from ..graph import ModelTrace
from ..modules.copying import whole_copy
from ..modules.slicing import named_tensors, sliced_shape
from ..plan import PruningPlan
from ..targets.clock import Ratio, compare
from . import console as tables
from .errors import UserError
from .progress import Stages

PlanOf = Callable[[argparse.Namespace, ModelTrace], PruningPlan]
Row = tuple[float, PruningPlan, int, Ratio | None]
"""(target, its plan, bytes of the small network's tensors, its time over the full one's)."""


def asked(arguments: argparse.Namespace) -> str | None:
    """Return which target has several values, if one has."""
    names = ("flops", "params", "latency", "size_mb", "sparsity")
    several = [name for name in names if "," in (getattr(arguments, name) or "")]
    return several[0] if several else None


def run(
    model: nn.Module,
    inputs: Any,
    arguments: argparse.Namespace,
    name: str,
    values: list[float],
    plan_of: PlanOf,
    stages: Stages,
) -> list[Row]:
    """Plan each of `values` of the target `name` on one trace, and time the networks where that is asked."""
    traced = reprune.trace(model, inputs, progress=stages)
    rows: list[Row] = []
    for value in values:
        plan = plan_of(argparse.Namespace(**{**vars(arguments), name: value}), traced)
        small = whole_copy(model)
        reprune.apply(plan, small)
        ratio = compare(small, model, traced.example) if arguments.measure else None
        rows.append((value, plan, tensor_bytes(small), ratio))
    return rows


def tensor_bytes(model: nn.Module, plan: PruningPlan | None = None) -> int:
    """Return the bytes of the model's tensors, or what `plan` leaves of them; tied ones count once."""
    slices = {} if plan is None else plan.slices
    kept = {id(tensor): slices[name] for name, tensor in named_tensors(model).items() if name in slices}
    tensors = {id(tensor): tensor for tensor in model.state_dict(keep_vars=True).values()}
    return sum(
        math.prod(sliced_shape(tensor.shape, kept.get(key, {}))) * tensor.element_size()
        for key, tensor in tensors.items()
    )


def check(arguments: argparse.Namespace, name: str) -> None:
    """Raise an error if a file was asked for."""
    if arguments.output is not None:
        raise UserError(
            f"--output: expected none with several values of --{name.replace('_', '-')}, which are compared; "
            "choose one of them for the file"
        )


def show(arguments: argparse.Namespace, name: str, rows: list[Row], seconds: float) -> None:
    """Print the plans side by side, as a table or as JSON."""
    if arguments.json:
        found = [
            {
                "target": value,
                "flops": {"before": plan.flops[0], "after": plan.flops[1]},
                "parameters": {"before": plan.params[0], "after": plan.params[1]},
                "bytes": size,
                "latency": None if ratio is None else ratio.middle,
                "notes": list(plan.notes),
            }
            for value, plan, size, ratio in rows
        ]
        json.dump(
            {"model": arguments.model, "of": name, "seconds": round(seconds, 3), "targets": found},
            sys.stdout,
            indent=2,
        )
        print()
        return
    head = (name.replace("_", "-"), "FLOPs", "parameters", "size")
    cells = [
        (
            f"{value:g}",
            tables.percent(plan.flops[1] / plan.flops[0]),
            tables.percent(plan.params[1] / plan.params[0]),
            tables.memory(size),
            *([] if ratio is None else [f"{ratio.middle:.2f}" + ("" if ratio.trusted else " (scatters)")]),
        )
        for value, plan, size, ratio in rows
    ]
    tables.show(f"{arguments.model}, {seconds:.1f} s", (*head, "time") if arguments.measure else head, cells)
    for note in dict.fromkeys(note for _, plan, *_ in rows for note in plan.notes):
        tables.say(f"Note: {note}.")
