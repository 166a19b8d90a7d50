"""The sizes that layers remember as attributes: brought in line with their tensors after these were cut.

Norms that neither learn nor count have no tensors to tell by, so a trace looks how wide they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..wrappers import named_modules
from .known import Known
from .labels import Ints

_Conv = nn.modules.conv._ConvNd
_Norm = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
_WithWeight = (_Conv, nn.Linear, nn.Embedding, nn.PReLU, *_Norm)


def remember_sizes(module: nn.Module) -> None:
    """Bring the attributes of a layer in line with the shape of its weight."""
    weight = current_weight(module) if isinstance(module, _WithWeight) else None
    if isinstance(module, nn.modules.batchnorm._NormBase):
        for tensor in (weight, module.running_mean):
            if tensor is not None:
                module.num_features = tensor.shape[0]
    elif weight is None:
        return
    elif isinstance(module, _Conv):
        rows, columns = weight.shape[:2]
        first, second = (
            ("in_channels", "out_channels") if module.transposed else ("out_channels", "in_channels")
        )
        if (
            columns == getattr(module, second) // module.groups
        ):  # else every group lost channels, and all stay
            module.groups = _scaled(module.groups, rows, getattr(module, first))
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


def current_weight(module: nn.Module) -> Tensor | None:
    """The weight that the next forward pass in evaluation mode takes, where it is computed too: by
    ``torch.nn.utils.parametrize``, or by a hook (old ``weight_norm``, ``torch.nn.utils.prune``), which leaves
    it as a plain attribute, of the old size until the hook runs again, as it does here."""
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


@contextlib.contextmanager
def norms_seen(model: nn.Module, known: Known) -> Iterator[dict[str, Ints]]:
    """{norm without tensors: the labels of the channels that it is given}, of what runs in between."""
    seen: dict[str, Ints] = {}

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                line = known.state(inputs[0]).dims[_channel_dim(module, inputs[0])]
                if isinstance(line, np.ndarray):
                    seen.setdefault(name, line)

        return hook

    handles = [
        module.register_forward_pre_hook(look(name))
        for name, module in named_modules(model).items()
        if isinstance(module, _Norm) and not [*module.parameters(), *module.buffers()]
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _channel_dim(module: nn.Module, x: Tensor) -> int:
    unbatched = isinstance(module, nn.modules.instancenorm._InstanceNorm)
    return x.dim() - module._get_no_batch_dim() if unbatched else 1  # type: ignore[operator]  # no annotation


def set_widths(model: nn.Module, widths: Mapping[str, int]) -> None:
    """Tell norms without tensors, {name: channels}, how many they are given."""
    modules = named_modules(model)
    for name, channels in widths.items():
        _set_width(modules[name], channels)


def _set_width(module: nn.Module, channels: int) -> None:
    if isinstance(module, nn.GroupNorm):
        module.num_groups = _scaled(module.num_groups, channels, module.num_channels)
        module.num_channels = channels
    else:
        module.num_features = channels  # type: ignore[assignment]


def _scaled(groups: int, channels: int, before: int) -> int:
    """Groups keep their width."""
    return channels // (before // groups) if groups > 1 else 1
