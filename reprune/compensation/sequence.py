"""Find which operations run, in which order, what they may change and how much memory they need."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter

from ..modules.slicing import named_tensors
from .calls import Call
from .modes import Intercepting
from .paused import Inputs


@dataclass(eq=False)
class Event:
    """One intercepted operation."""

    name: str
    """The weight, or the running mean, that may change."""
    layer: str
    """The name for people."""
    is_norm: bool
    inputs: int
    """Input channels of each group."""
    shape: tuple[int, ...]
    """Of its input."""
    bias: str | None
    bytes: int
    """Of all activations that are alive, and of its output."""
    output: int
    """Bytes of its output."""
    meets_norm: bool = False
    """Whether a BatchNorm takes its output, so that a constant is not lost."""


@dataclass(frozen=True)
class Sequence:
    """The operations of a forward pass."""

    events: list[Event]
    uses: Mapping[str, int]
    """{weight or running mean: how often it is used}."""
    elsewhere: Mapping[str, str]
    """{tensor of the model: another operation that uses it}."""
    shared_biases: frozenset[str] = frozenset()
    """Biases of more than one weight, which have to stay."""


@dataclass
class _Observed:
    names: Mapping[int, str]
    events: list[Event] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)
    alive: list[weakref.ref[Tensor]] = field(default_factory=list)
    last: dict[int, tuple[weakref.ref[Tensor], Event]] = field(default_factory=dict)

    def call(self, call: Call) -> Tensor:
        """Run an intercepted operation and note it."""
        out = call.run({})
        name = call.name
        event = Event(
            name=name,
            layer=name.rpartition(".")[0] or name,
            is_norm=call.is_norm,
            inputs=0 if call.is_norm else call.inputs,
            shape=tuple(call.input.shape),
            bias=call.names.get("bias"),
            bytes=0,
            output=out.numel() * out.element_size(),
        )
        found = self.last.get(id(call.input))
        if call.is_norm and found is not None and found[0]() is call.input:
            found[1].meets_norm = True
        self._note(out)
        self.last[id(out)] = (weakref.ref(out), event)
        event.bytes = self._bytes()
        self.events.append(event)
        return out

    def other(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        """Note another operation: the tensors of the model that it uses, and its outputs."""
        made = [x for x in tree_iter(out) if isinstance(x, Tensor)]
        for x in made:
            self._note(x)
        if made:
            for x in tree_iter((args, dict(kwargs))):
                if isinstance(x, Tensor) and id(x) in self.names:
                    self.elsewhere.setdefault(self.names[id(x)], getattr(func, "__name__", str(func)))

    def _note(self, x: Tensor) -> None:
        if id(x) not in self.names:
            self.alive.append(weakref.ref(x))

    def _bytes(self) -> int:
        """Return the bytes of all storages that are alive."""
        there = [(ref, x) for ref in self.alive if (x := ref()) is not None]
        self.alive = [ref for ref, _ in there]
        storages = {x.untyped_storage()._cdata: x.untyped_storage().nbytes() for _, x in there}
        return sum(storages.values())


def observed(model: nn.Module, inputs: Inputs) -> Sequence:
    """Run `model` once and return its operations."""
    seen = _Observed({id(tensor): name for name, tensor in named_tensors(model).items()})
    args, kwargs = inputs
    with torch.no_grad(), Intercepting(model, seen.call, seen.other):
        model(*args, **kwargs)
    biases = {(e.bias, e.name) for e in seen.events if e.bias is not None and not e.is_norm}
    weights = Counter(bias for bias, _ in biases)
    shared = {bias for bias, count in weights.items() if bias and (count > 1 or bias in seen.elsewhere)}
    return Sequence(
        events=seen.events,
        uses=Counter(event.name for event in seen.events),
        elsewhere=seen.elsewhere,
        shared_biases=frozenset(
            shared | {bias for bias in weights if bias in seen.elsewhere and bias is not None}
        ),
    )
