"""Update the sizes that layers keep as attributes after their tensors were sliced."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..aliases import Ints
from .linear import is_turned
from .wrappers import named_modules

_Conv = nn.modules.conv._ConvNd
NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
_WithWeight = (_Conv, nn.Linear, nn.Embedding, nn.PReLU, *NORMS)


WIDTHS = {("torchvision.models.vision_transformer", "VisionTransformer"): ("hidden_dim", "conv_proj")}
"""{(module, class of a network): (the width that it reads as it runs, the convolution that has that)}."""


def sync_layer_sizes(module: nn.Module) -> None:
    """Update the size attributes of a layer to the shape of its weight."""
    kind = type(module)
    _sync_shape(module)
    if (read := WIDTHS.get((kind.__module__, kind.__name__))) is not None:
        setattr(module, read[0], getattr(module, read[1]).weight.shape[0])
    turned = is_turned(module)
    weight = current_weight(module) if turned or isinstance(module, _WithWeight) else None
    if isinstance(module, nn.modules.batchnorm._NormBase):
        for tensor in (weight, module.running_mean):
            if tensor is not None:
                module.num_features = tensor.shape[0]
    elif weight is None:
        return
    elif turned:
        module.nx, module.nf = weight.shape  # type: ignore[assignment]
    elif isinstance(module, _Conv):
        rows, columns = weight.shape[:2]
        first, second = _sides(module)
        if (
            columns == getattr(module, second) // module.groups
        ):  # else every group lost channels, and all stay
            module.groups = _scaled(module, module.groups, rows, getattr(module, first))
        setattr(module, first, rows)
        setattr(module, second, columns * module.groups)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = weight.shape
    elif isinstance(module, nn.GroupNorm):
        _set_width(module, weight.shape[0])
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = weight.shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = weight.shape[0]


def sync_groups(model: nn.Module, slices: Mapping[str, Mapping[int, Ints]]) -> None:
    """Set the sizes of grouped convolutions that lost whole groups and, by a later plan, a part of the rest.

    Shapes do not tell how many groups are left then, but positions do. `slices` are those of the weights,
    and the sizes those from before.
    """
    for name, module in named_modules(model).items():
        cut = slices.get(f"{name}.weight" if name else "weight", {})
        if not isinstance(module, _Conv) or module.groups == 1 or 0 not in cut:
            continue
        first, second = _sides(module)
        counts = rows_left(cut[0], getattr(module, first), module.groups)
        width = getattr(module, first) // module.groups
        if counts.size < module.groups and (1 in cut or counts[0] < width):
            columns = cut[1].size if 1 in cut else getattr(module, second) // module.groups
            module.groups = counts.size
            setattr(module, first, cut[0].size)
            setattr(module, second, columns * counts.size)


def rows_left(kept: Ints, rows: int, groups: int) -> Ints:
    """Return how many of the `rows` of a weight are `kept` in each group of which any is left."""
    counts: Ints = np.unique(kept // (rows // groups), return_counts=True)[1]
    return counts


def _sides(module: _Conv) -> tuple[str, str]:
    """Return the names of the sizes that the first and the second dimension of the weight have."""
    return ("in_channels", "out_channels") if module.transposed else ("out_channels", "in_channels")


def _sync_shape(module: nn.Module) -> None:
    """Update the shape in which a module shows its only parameter: `x * self.scale.view(self.shape)`."""
    shape, held = module.__dict__.get("shape"), module._parameters
    tensor = next(iter(held.values())) if len(held) == 1 else None
    if type(shape) is not tuple or tensor is None or not all(type(size) is int for size in shape):
        return
    wide = [k for k, size in enumerate(shape) if size != 1]
    if len(wide) == 1 and tensor.dim() == 1:
        module.__dict__["shape"] = tuple(tensor.shape[0] if k in wide else 1 for k in range(len(shape)))


def current_weight(module: nn.Module) -> Tensor | None:
    """Return the weight that the next forward pass in evaluation mode uses, computed ones too.

    It may be computed by `torch.nn.utils.parametrize`, or by a hook (old `weight_norm`,
    `torch.nn.utils.prune`) that stores it as a plain attribute: of the old size until the hook runs
    again, as it does here.
    """
    hooked = any(isinstance(module.__dict__.get(name), Tensor) for name in ("weight", "bias"))
    if "weight" in module._parameters and not hooked:
        return module._parameters["weight"]
    modes = {inner: inner.training for inner in module.modules()}
    for inner in modes:
        inner.training = False  # a spectral norm takes a step in training mode
    try:
        with torch.no_grad():
            for key, hook in module._forward_pre_hooks.items() if hooked else ():
                hook(module, (), {}) if key in module._forward_pre_hooks_with_kwargs else hook(module, ())
            return getattr(module, "weight", None)
    finally:
        for inner, mode in modes.items():
            inner.training = mode


def set_widths(model: nn.Module, widths: Mapping[str, int]) -> None:
    """Set the number of channels of norms without tensors, {name: channels}."""
    modules = named_modules(model)
    for name, channels in widths.items():
        _set_width(modules[name], channels)


def _set_width(module: nn.Module, channels: int) -> None:
    if isinstance(module, nn.GroupNorm):
        module.num_groups = _scaled(module, module.num_groups, channels, module.num_channels)
        module.num_channels = channels
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = channels


_WIDTH = "_reprune_group_width"
"""Attribute of a layer of which one group is left: the channels of a group, when others may come back."""


def is_last_of_groups(module: nn.Module) -> bool:
    """Return whether `module` had several groups of channels, of which one is left."""
    return _WIDTH in module.__dict__


def _scaled(module: nn.Module, groups: int, channels: int, before: int) -> int:
    """Return the number of groups of `module` after slicing: groups keep their width."""
    width = before // groups if groups > 1 else module.__dict__.pop(_WIDTH, None)
    if width is None:
        return 1
    if channels <= width:  # the last group, or by a later plan a part of it
        module.__dict__[_WIDTH] = width
        return 1
    return channels // width
