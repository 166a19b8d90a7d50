"""Define the state of a traced tensor and a call of an ATen operation."""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from ..aliases import Ints


class Free(enum.Enum):
    """A dimension along which a tensor is constant: it fits any size, so it takes the labels it meets."""

    FREE = "free"


FREE = Free.FREE
Dim = Ints | Free | None
"""The labels along one dimension; FREE; or None if every position is fixed."""


@dataclass(frozen=True)
class State:
    """What is known of one tensor."""

    dims: tuple[Dim, ...]
    is_activation: bool
    """Whether it depends on the model's input: an activation, not a weight."""

    def labels(self, dim: int) -> Ints | None:
        """Return the labels along `dim`, or None if it has none."""
        labels = self.dims[dim]
        return None if labels is None or labels is FREE else labels

    def labelled(self) -> list[int]:
        """Return the dimensions that carry labels."""
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
    """One call of an ATen operation; arguments by their schema names: `call["dim"]`."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any = None) -> None:
        self.func, self.args, self.kwargs, self.out = func, args, kwargs, out
        self.name = base_name(func)
        self._values = _flat((*args, *kwargs.values()))
        self._tensors = [x for x in self._values if isinstance(x, torch.Tensor)]

    def __getitem__(self, name: str) -> Any:
        if name in self.kwargs:
            return self.kwargs[name]
        found = _arguments(self.func).get(name)
        if found is None:
            raise KeyError(f"{self.func} has no argument {name!r}")
        k, default = found
        return self.args[k] if k < len(self.args) else default

    @property
    def writes_to_self(self) -> bool:
        """It is the in-place form of an operation, `aten::add_`."""
        return _in_place(self.func)

    def has(self, name: str) -> bool:
        return name in _arguments(self.func)

    def tensors(self) -> list[torch.Tensor]:
        """Return the tensors among the arguments, lists flattened."""
        return list(self._tensors)

    def outputs(self) -> list[torch.Tensor]:
        outs = self.out if isinstance(self.out, (list, tuple)) else (self.out,)
        return [x for x in _flat(outs) if isinstance(x, torch.Tensor)]

    def scalars(self) -> Iterator[Any]:
        """Yield the plain values among the arguments."""
        for x in self._values:
            if isinstance(x, (bool, int, float, complex, str)):
                yield x


def _flat(values: Iterable[Any]) -> list[Any]:
    """Return `values` with lists replaced by their elements; ATen's arguments nest no deeper."""
    flat: list[Any] = []
    for value in values:
        if type(value) is list or type(value) is tuple:
            flat += value
        else:
            flat.append(value)
    return flat


@functools.cache
def _arguments(func: Any) -> dict[str, tuple[int, Any]]:
    """Return {argument of an operation: (position, default)}."""
    return {a.name: (k, a.default_value) for k, a in enumerate(func._schema.arguments)}


@functools.cache
def _in_place(func: Any) -> bool:
    name = str(func._schema.name)
    return name.endswith("_") and not name.endswith("__")


def storage_of(x: torch.Tensor) -> int | None:
    """Return a number that tensors sharing memory share, on "meta" too; None where there is none."""
    try:
        return int(x.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # a sparse tensor has several
        return None


@functools.cache
def base_name(func: Any) -> str:
    """Return the name of an operation, `aten::add_` -> `add`; an in-place form shares its rule."""
    name = str(func._schema.name)
    name = name.removeprefix("aten::")
    return name if name.endswith("__") else name.rstrip("_")
