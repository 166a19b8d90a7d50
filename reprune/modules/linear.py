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


def is_pixelwise(module: nn.Module) -> bool:
    """Return whether `module` is a convolution of 1x1 pixels, a Linear layer of images."""
    plain = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and module.groups == 1
    return plain and set(module.kernel_size) == {1}  # type: ignore[arg-type]


def outputs_of(module: Any) -> int:
    """Return how many outputs a Linear layer, or one of images, says that it has."""
    if isinstance(module, nn.modules.conv._ConvNd):
        return module.out_channels
    return int(module.nf if is_turned(module) else module.out_features)


def only_linear(module: nn.Module) -> nn.Module | None:
    """Return `module` if it is a Linear layer, or the only one inside; None if there is another number.

    A convolution of 1x1 pixels is one too.
    """
    if is_linear(module) or is_pixelwise(module):
        return module
    inside = [one for one in module.modules() if is_linear(one) or is_pixelwise(one)]
    return inside[0] if len(inside) == 1 else None
