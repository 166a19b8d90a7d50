"""Make a plain twin of a sharded model, which has its structure and no values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .copying import shared_copy
from .sharded import is_part, settle
from .slicing import replacement


def twin_of(model: nn.Module) -> nn.Module:
    """Return a copy of the sharded `model` as it was before `fully_shard`, with parameters on "meta".

    Its modules have their own classes and the user's hooks, its parameters their full shapes. What was not
    sharded, such as buffers, is shared. Tied parameters are tied, and a module in two places is one.

    Raises `TypeError` if something else than `fully_shard` has sharded a tensor of `model`.
    """
    settle(model)
    new: dict[Tensor, Tensor] = {}
    for parameter in model.parameters():
        if is_part(parameter):
            shape = torch.empty(parameter.shape, dtype=parameter.dtype, device="meta")
            new[parameter] = replacement(parameter, shape)
    return shared_copy(model, new)
