"""What is known of a tensor while a model is traced, and one call of an ATen operation."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_iter

from .labels import Ints


class Free(enum.Enum):
    """A dimension along which a tensor is constant: it fits any size, so it takes the labels it meets."""

    FREE = "free"


FREE = Free.FREE
Dim = Ints | Free | None
"""The labels along one dimension; FREE; or None, where every position is fixed."""


@dataclass(frozen=True)
class State:
    """What is known of one tensor."""

    dims: tuple[Dim, ...]
    flows: bool
    """It depends on the model's input: an activation, not a weight."""

    def labels(self, dim: int) -> Ints | None:
        """The labels along `dim`, if it has any."""
        labels = self.dims[dim]
        return None if labels is None or labels is FREE else labels

    def labelled(self) -> list[int]:
        """The dimensions that carry labels."""
        return [k for k, d in enumerate(self.dims) if d is not None and d is not FREE]


@dataclass(frozen=True)
class Convolution:
    """A convolution or Linear layer as it was called."""

    kernel: torch.Tensor
    """The effective kernels; convolution: [O, I/groups, ...], transposed: [I, O/groups, ...], Linear layer:
    [O, I]."""
    transposed: bool
    groups: int
    channels: Ints
    """[O] labels of the output channels."""


class Call:
    """One call of an ATen operation; arguments by their schema names: ``call["dim"]``."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        self.func, self.args, self.kwargs, self.out = func, args, kwargs, out
        self.name = base_name(func)

    def __getitem__(self, name: str) -> Any:
        if name in self.kwargs:
            return self.kwargs[name]
        for k, argument in enumerate(self.func._schema.arguments):
            if argument.name == name:
                return self.args[k] if k < len(self.args) else argument.default_value
        raise KeyError(f"{self.func} has no argument {name!r}")

    def has(self, name: str) -> bool:
        return any(argument.name == name for argument in self.func._schema.arguments)

    def tensors(self) -> list[torch.Tensor]:
        """The tensors among the arguments, lists flattened."""
        return [x for x in tree_iter((self.args, self.kwargs)) if isinstance(x, torch.Tensor)]

    def outputs(self) -> list[torch.Tensor]:
        return [x for x in tree_iter(self.out) if isinstance(x, torch.Tensor)]

    def scalars(self) -> Iterator[Any]:
        """The plain values among the arguments."""
        for x in tree_iter((self.args, self.kwargs)):
            if isinstance(x, (bool, int, float, complex, str)):
                yield x


def base_name(func: Any) -> str:
    """``aten::add_`` -> ``add``: an operation and its in-place form share a rule."""
    name = str(func._schema.name)
    name = name.removeprefix("aten::")
    return name if name.endswith("__") else name.rstrip("_")
