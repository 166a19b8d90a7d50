"""A model after its first trace: labels, atoms and what ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .cost import Cost, cost_of, parameter_cost
from .known import Key
from .labels import Atoms, Ints, solve
from .slicing import named_tensors, sliced_copy
from .trace import Trace, fresh_labels, run

Example = tuple[tuple[Any, ...], dict[str, Any]]
"""(positional, keyword) arguments of a forward pass."""


@dataclass(frozen=True)
class TracedModel:
    """What one trace says about a model."""

    labels: Mapping[Key, Ints]
    """The index map: {(tensor, dim): the label of each position}."""
    atoms: Atoms
    flops: Cost
    params: Cost
    edges: list[tuple[Ints, Ints]]
    """What united, in order."""
    choices: list[int]
    log: list[tuple[Any, ...]]
    data_dependent: bool
    training_problem: str | None
    """Why the model could not be traced in training mode too."""
    shapes: TracedModel | None = None
    """The same for the model on the device "meta", without values; of a large model, if it runs there."""

    def slices(self, kept: npt.NDArray[np.bool_]) -> dict[str, dict[int, Ints]]:
        """{tensor: {dim: kept positions}} for the dimensions that lose some when the atoms `kept` [atoms]
        stay."""
        slices: dict[str, dict[int, Ints]] = {}
        for (name, dim), line in self.labels.items():
            stays = kept[self.atoms.of[line]]
            if not stays.all():
                slices.setdefault(name, {})[dim] = np.flatnonzero(stays)
        return slices

    def filled(self, kept: npt.NDArray[np.bool_], least: int = 1) -> npt.NDArray[np.bool_]:
        """`kept` and the first atoms that it takes to leave at least `least` positions of every dimension.

        A group can have a layer that sees a part of its channels only, and none of these may be in `kept`.
        """
        kept = kept.copy()
        for line in self.labels.values():
            atoms = self.atoms.of[line]
            for atom in atoms:
                if np.count_nonzero(kept[atoms]) >= least:
                    break
                kept[atom] = True
        return kept


def trace_model(model: nn.Module, example: Example) -> tuple[TracedModel, Trace]:
    """Run `model` once and solve what the trace says.  The model is left as it was."""
    tensors = named_tensors(model)
    labels, count = fresh_labels(tensors)
    trace = Trace(tensors, labels)
    problem = run(model, example, trace)
    atoms = solve(trace.known.ledger, count)
    flops = cost_of(trace.costs, atoms)
    params = parameter_cost(model, labels, atoms)
    traced = TracedModel(
        labels=labels,
        atoms=atoms,
        flops=flops,
        params=params,
        edges=trace.known.ledger.edges,
        choices=trace.known.choices,
        log=trace.log,
        data_dependent=trace.data_dependent,
        training_problem=problem,
    )
    return replace(traced, shapes=_as_shapes(model, example, traced)), trace


LARGE_FLOPS, LARGE_BYTES = 2 * 10**10, 2**27
"""From here on a pass without values costs less than one with them: 20 GFLOPs, 128 MiB."""


def _as_shapes(model: nn.Module, example: Example, traced: TracedModel) -> TracedModel | None:
    """What the full model does without values; the labels are those of the trace with values."""
    size = sum(t.nbytes for t in named_tensors(model).values())
    if traced.data_dependent or (traced.flops.full < LARGE_FLOPS and size < LARGE_BYTES):
        return None
    try:
        shapes = sliced_copy(model, {}, meta=True)
        trace = Trace(named_tensors(shapes), traced.labels)
        problem = run(shapes, without_values(example), trace)
    except TimeoutError:
        raise
    except Exception:  # it reads values, or an operation has no form without them
        return None
    if problem != traced.training_problem:
        return None
    return replace(traced, edges=trace.known.ledger.edges, choices=trace.known.choices, log=trace.log)


def without_values(example: Example) -> Example:
    """`example` with its floating-point tensors on the device "meta"."""
    shapes: Example = tree_map(
        lambda x: x.to("meta") if isinstance(x, Tensor) and x.is_floating_point() else x, example
    )
    return shapes


def as_example(example_inputs: Any) -> Example:
    """A tensor, a tuple of arguments or a dictionary of keyword arguments, as (args, kwargs)."""
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, dict):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    raise TypeError(
        "example_inputs: expected a tensor, a tuple of positional arguments or a dictionary of "
        "keyword arguments of "
        f"the model, got {type(example_inputs).__name__}"
    )
