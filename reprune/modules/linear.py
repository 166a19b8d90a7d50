"""Recognise Linear layers, also those that GPT-2 keeps with inputs first."""

from __future__ import annotations

from typing import Any

from torch import nn


def is_turned(module: nn.Module) -> bool:
    """Return whether `module` is a Linear layer with weight [in, out]: `Conv1D` of transformers."""
    return type(module).__name__ == "Conv1D" and "nf" in vars(module) and "weight" in module._parameters


def is_linear(module: nn.Module) -> bool:
    """Return whether `module` is a Linear layer, whichever way its weight lies."""
    return isinstance(module, nn.Linear) or is_turned(module)


def outputs_of(module: Any) -> int:
    """Return how many outputs a Linear layer says that it has."""
    return int(module.nf if is_turned(module) else module.out_features)


def only_linear(module: nn.Module) -> nn.Module | None:
    """Return `module` if it is a Linear layer, or the only one inside; None if there is another number."""
    if is_linear(module):
        return module
    inside = [one for one in module.modules() if is_linear(one)]
    return inside[0] if len(inside) == 1 else None
