"""Pin what comes out of a forward pass, which cannot be pruned."""

from __future__ import annotations

import gc
from typing import Any

from torch import nn

from ..modules.held import modules_of, tensors_in
from .memory import Memory
from .preserving import functions_of
from .propagation import Propagation
from .state import State, storage_of

WHY = "is an output of the model"
KEPT = "is left unused by the forward pass, so it may be an output"


def pin_outputs(known: Propagation, memory: Memory, output: Any, model: nn.Module) -> None:
    """Pin the outputs of a pass of `model`.

    The outputs are the tensors that `output` holds, at any depth. An object may still hide them (in its own
    memory, in a file). So a result that no operation has read and that still exists outside of the model
    counts as an output too; if no output was found at all, also one on the model.
    """
    found = tensors_in(output)
    states = [known.state(x) if known.knows(x) else memory.content(x) for x in found]
    for state in states:
        known.pin_state(state, WHY)
    names = {storage_of(x) for x in found}
    for where in [*names, *(where for where, _ in memory.unread())] if known.unread else ():
        known.read(where)
    left = {where: state for where, state in memory.unread() if _is_result(state) and where not in names}
    if left and any(state is not None and state.is_activation for state in states):
        hung = (*map(vars, modules_of(model)), *functions_of(model))
        for x in tensors_in(*hung, enter=lambda one: one is not known):
            left.pop(storage_of(x) or 0, None)
    if left:
        gc.collect()  # what only a cycle keeps is nobody's output
        there = {where for where, _ in memory.unread()}
        left = {where: state for where, state in left.items() if where in there}
    for state in left.values():
        known.pin_state(state, KEPT)


def _is_result(state: State) -> bool:
    return state.is_activation and bool(state.labelled())
