"""What of a call must stay the same when channels leave.

One trace cannot tell a constant from a number made of a size (``C ** -0.5``, a branch on the width).  A
sliced model whose calls bear other scalars is not the model that was traced.
"""

from __future__ import annotations

from typing import Any

from .known import Known
from .rules import FACTORIES, is_movement
from .state import Call


def signature(call: Call, known: Known) -> tuple[Any, ...] | None:
    """The operation and its scalars, without those that are sizes by their meaning; None for a call that
    only moves values: labels show where they go, and whether a copy is needed depends on sizes.
    """
    if is_movement(call) or call.name in ("clone", "contiguous"):
        return None
    if call.name in FACTORIES:
        return (call.name, call["fill_value"] if call.has("fill_value") else None)
    if call.name == "convolution":
        return (
            call.name,
            *map(tuple, (call["stride"], call["padding"], call["dilation"])),
            call["transposed"],
        )
    if call.name == "native_group_norm":
        return (call.name, call["C"] // call["group"], call["eps"])
    constants = [
        x.item()
        for x in call.tensors()
        if x.dim() == 0 and x.device.type == "cpu" and not known.state(x).flows
    ]
    return (call.name, *call.scalars(), *constants)
