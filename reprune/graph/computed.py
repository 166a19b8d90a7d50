"""Hold a call that computes, so that it can be run on other values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .given import Given
from .propagation import Propagation
from .rules import FACTORIES, is_movement
from .rules_attention import FUSED
from .state import Call, State, storage_of


class Computed(NamedTuple):
    """A call that computes, so that it can be run on other values."""

    name: str
    func: Any
    args: tuple[Any, ...]
    """With tensors replaced by :class:`Given`, as in `kwargs`."""
    kwargs: dict[str, Any]
    numbers: list[Any]
    """The plain values among the arguments; of a convolution without its groups, which come last."""
    tensors: list[Given]
    outs: list[Given]

    @property
    def call(self) -> Call:
        return Call(self.func, self.args, self.kwargs)


def computed(call: Call, states: Sequence[State], known: Propagation) -> Computed | None:
    """Return what `call` was, with tensors in `states` before it; None for calls that are not checked here.

    Those that only move values are checked on their own; those that draw have other values (of attention it
    is checked what it gives without dropout); of what is resized nothing is left; what is not ATen's may read
    memory by values.
    """
    operation = call.operation
    draws = operation.draws and call.name not in FUSED
    plain = operation.text.startswith("aten.") and not (draws or operation.asks_data)
    if known.unread and any(storage_of(x) in known.unread for x in call.outputs()):
        return None  # nothing reads it, or nothing that it was made of may leave
    if not plain or not states or call.name in FACTORIES or call.name == "resize" or is_movement(call):
        return None
    tensors = [Given(x.shape, x.dtype, s) for x, s in zip(call.tensors(), states, strict=True)]
    outs = [Given(x.shape, x.dtype, known.state(x)) for x in call.outputs()]
    left = iter(tensors)
    args = tuple([_replaced(x, left) for x in call.args])
    kwargs = {name: _replaced(x, left) for name, x in call.kwargs.items()} if call.kwargs else {}
    numbers = call.scalars()
    if call.name == "convolution":
        numbers.pop()
    return Computed(call.name, call.func, args, kwargs, numbers, tensors, outs)


def _replaced(value: Any, left: Iterator[Given]) -> Any:
    """Return an argument with each tensor in it replaced by the next of what is `left`."""
    if isinstance(value, Tensor):
        return next(left)
    if value.__class__ is list or value.__class__ is tuple:
        return [next(left) if isinstance(x, Tensor) else x for x in value]
    return value
