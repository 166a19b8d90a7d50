"""Recognise the operations whose weights can be fitted, and name their arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_CONV = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_NORM = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")

_ARGUMENTS: dict[Callable[..., Any], tuple[str, ...]] = {
    F.linear: ("input", "weight", "bias"),
    F.batch_norm: _NORM,
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _CONV),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _TRANSPOSED),
}
_DIMENSIONS = {
    torch.conv1d: 1,
    torch.conv2d: 2,
    torch.conv3d: 3,
    torch.conv_transpose1d: 1,
    torch.conv_transpose2d: 2,
    torch.conv_transpose3d: 3,
}


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a convolution, of `linear` or of `batch_norm` with tensors of the model."""

    func: Callable[..., Any]
    arguments: Mapping[str, Any]
    names: Mapping[str, str]
    """{argument: name of the model's tensor that was given for it}."""

    def run(self, values: Mapping[str, Tensor]) -> Tensor:
        """Return the output with `values` {name: tensor} in the place of the model's own."""
        new = {argument: values[name] for argument, name in self.names.items() if name in values}
        out: Tensor = self.func(**{**self.arguments, **new})
        return out

    @property
    def is_norm(self) -> bool:
        return self.func is F.batch_norm

    @property
    def name(self) -> str:
        """The tensor that is fitted: the weight, or the running mean of a norm."""
        return self.names["running_mean" if self.is_norm else "weight"]

    @property
    def is_transposed(self) -> bool:
        return _ARGUMENTS[self.func] is _TRANSPOSED

    @property
    def dimensions(self) -> int:
        """How many dimensions a convolution runs along; 0 for `linear`."""
        return _DIMENSIONS.get(self.func, 0)

    @property
    def groups(self) -> int:
        return int(self.arguments.get("groups", 1))

    @property
    def input(self) -> Tensor:
        x: Tensor = self.arguments["input"]
        return x

    @property
    def weight(self) -> Tensor:
        x: Tensor = self.arguments["weight"]
        return x

    @property
    def inputs(self) -> int:
        """Input channels of one group."""
        return self.weight.shape[0] // self.groups if self.is_transposed else self.weight.shape[1]

    @property
    def channels(self) -> int:
        """The dimension of the output along which its channels lie, with a batch or without."""
        return 1 if self.is_norm else -1 - self.dimensions

    @property
    def lacks_batch(self) -> bool:
        """Whether a convolution runs on one image alone, `[C, ...]`."""
        return bool(self.dimensions) and self.input.dim() < self.dimensions + 2

    def along(self, argument: str) -> tuple[int, ...]:
        """Return a setting of a convolution such as its stride, one number for each dimension."""
        default = 0 if "padding" in argument else 1
        value = self.arguments.get(argument, default)
        values = (value,) if isinstance(value, int) else tuple(value)
        return values * self.dimensions if len(values) == 1 else values


def call_of(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], names: Mapping[int, str]
) -> Call | None:
    """Return the call if its weight, or a norm's mean, is one of the model's tensors {id: name}."""
    order = _ARGUMENTS.get(func)
    if order is None:
        return None
    arguments = {**dict(zip(order, args, strict=False)), **kwargs}
    found = {key: names[id(x)] for key, x in arguments.items() if isinstance(x, Tensor) and id(x) in names}
    fitted = "running_mean" if func is F.batch_norm else "weight"
    if fitted not in found or arguments.get("training") or not arguments[fitted].is_floating_point():
        return None
    return Call(func, arguments, found)
