"""Describe what must stay the same in a call when channels are removed.

One trace cannot distinguish a constant from a number computed from a size (`C ** -0.5`, a branch on the
width). A sliced model whose calls have other scalars is not the model that was traced.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .propagation import Propagation
from .rules import FACTORIES, is_movement
from .state import Call


def signature(call: Call, known: Propagation) -> tuple[Any, ...] | None:
    """Return the operation and its scalars, without those that are sizes by their meaning.

    It is None for a call that only moves values: labels show where they go, and whether a copy is
    needed depends on sizes.
    """
    if is_movement(call) or call.name in ("clone", "contiguous") or _changes_memory_format(call, known):
        return None
    if call.operation.draws and call.has("generator") and call["generator"] is not None:
        # How many numbers are drawn decides which they are, and a generator of the code's own can be seeded
        return (call.name, *call.scalars(), *(tuple(x.shape) for x in call.outputs()))
    if call.name in FACTORIES:
        return (call.name, _equal_to_itself(call["fill_value"]) if call.has("fill_value") else None)
    if call.name == "convolution":
        return (
            call.name,
            *map(tuple, (call["stride"], call["padding"], call["dilation"])),
            call["transposed"],
        )
    if call.name == "native_group_norm":
        return (call.name, call["C"] // call["group"], call["eps"])
    if call.name == "affine_grid_generator":  # told of the images' channels too, which are not of the grid
        images, _, *sides = call["size"]
        return (call.name, images, *sides, call["align_corners"])
    constants = [
        _equal_to_itself(x.item())
        for x in call.tensors()
        if x.dim() == 0 and x.device.type == "cpu" and not known.state(x).is_activation
    ]
    return (call.name, *call.scalars(), *constants)


def _equal_to_itself(value: Any) -> Any:
    """Return `value`, or for any NaN the same object: in tuples that is equal to itself."""
    return value if value == value else math.nan


def _changes_memory_format(call: Call, known: Propagation) -> bool:
    """Return whether the call resizes in place to the same sizes.

    Pooling to 1 x 1 does so to a channels_last tensor.
    """
    if call.name != "as_strided" or call.out is not call["self"]:
        return False
    x = call.out
    dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
    state = known.state(x)
    if not dense or len(state.dims) != x.dim():
        return False
    all_ids = [state.labels(k) for k in range(x.dim())]
    return all(ids is None or ids.size == size for ids, size in zip(all_ids, x.shape, strict=True))
