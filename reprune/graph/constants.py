"""Compare the values of constants: tensors made of neither the model's input nor its own tensors.

Such a tensor may hold a number that the code computed from a size, `torch.ones_like(x).sum(1)` or
`torch.tensor([1 / n for n in x.shape])`. No scalar of a call and no label shows it, so where a constant
meets what it is not, its values are part of what must stay the same when channels are removed.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence
from typing import Any

import torch
from torch import Tensor

from .by_tensor import ByTensor
from .preserving import written_by
from .propagation import Propagation
from .rules import FACTORIES, is_movement
from .state import FREE, Call, State, storage_of

SHOWN = 8
"""Constants of at most this many numbers are kept as they are; of larger ones a digest is."""

_ANY_VALUES = frozenset("rand randn rand_like randn_like".split())
_UNSET = frozenset("empty empty_like new_empty empty_strided new_empty_strided".split())
_OVERWRITTEN = frozenset(("copy", "fill", "zero"))


class Constants:
    """The constants of a run; `own` are the ids of the model's tensors.

    Once values of activations or weights have left PyTorch, nobody knows what is made of them, so that
    nothing new counts as a constant.
    """

    def __init__(self, known: Propagation, own: Container[int]) -> None:
        self._known = known
        self._own = own
        self._is_one: ByTensor[bool] = ByTensor()
        self._any = False
        self._values: ByTensor[tuple[int, tuple[Any, ...], Any]] = ByTensor()
        """{constant: (its version, where it is the same all along, its values)}."""
        self.trusted = True
        """Whether what comes from outside of PyTorch is made of sizes and plain numbers only."""
        self._lent: set[int | None] = set()
        """Memory that others than PyTorch know too, as an array of numpy, and may write to unseen."""

    def left(self, x: Tensor) -> None:
        """Note that the values of `x` leave PyTorch."""
        if id(x) in self._own or not self._holds(x):
            self.trusted = False
        self._lent.add(storage_of(x))

    def met(self, call: Call, states: Sequence[State], constant: Sequence[bool]) -> tuple[Any, ...]:
        """Return the values of the arguments that are `constant` if others of `call` are not.

        The call has yet to run, as it may write to them.
        """
        if call.name in FACTORIES or all(constant):
            return ()
        moves = is_movement(call)
        return tuple(
            self._values_of(x, state)
            for k, (x, state) in enumerate(zip(call.tensors(), states, strict=True))
            if constant[k]
            and (k or call.name not in _OVERWRITTEN)
            and (moves or x.dim() or x.device.type != "cpu")  # else it is a scalar of the call's
        )

    def returned(self, found: Sequence[Tensor]) -> tuple[Any, ...]:
        """Return the shapes and values of the constants among what was `found` in the model's output."""
        return tuple(
            (tuple(x.shape), self._values_of(x, state))
            for x in found
            if id(x) not in self._own and self._holds(x)
            if not (state := self._known.state(x)).is_activation
        )

    def note(self, call: Call, before: Sequence[bool]) -> None:
        """Record whether the results of `call` are constants; `before` says which of its arguments were."""
        if call.name in FACTORIES:
            constant = call.name not in _ANY_VALUES and call.name not in _UNSET
        elif call.name in _OVERWRITTEN and call.operation.in_place:
            constant = all(before[1:])
        else:
            constant = all(before) and not call.operation.draws
        if call.name in FACTORIES or not before:
            constant = constant and self.trusted  # else its sizes and numbers may be those of the data
        if not constant and (call.operation.asks_data or not call.outputs()):
            self.trusted = False  # how many there are, or what they are, is known outside
        if not constant and not self._any:
            return
        for x in (*call.outputs(), *(written_by(call) if call.operation.written else ())):
            if constant or self._is_one.get(x):
                self._is_one[x] = constant
                self._any = self._any or constant

    def are(self, call: Call, states: Sequence[State]) -> list[bool]:
        """Return which arguments of `call`, in these `states`, are constants."""
        own = self._own
        return [
            not state.is_activation and id(x) not in own and self._holds(x)
            for x, state in zip(call.tensors(), states, strict=True)
        ]

    def _holds(self, x: Tensor) -> bool:
        if not self._known.knows(x):
            return self.trusted
        return bool(self._any and self._is_one.get(x)) and not self._known.state(x).is_activation

    def _values_of(self, x: Tensor, state: State) -> Any:
        """Return what tells the values of `x`: one of each line along which it is the same all along."""
        if x.is_meta or type(x) not in (Tensor, torch.nn.Parameter) or x.layout is not torch.strided:
            return ()
        free = tuple(k for k, dim in enumerate(state.dims) if dim is FREE)
        version = -1 if x.is_inference() else x._version
        kept = self._values.get(x)
        lent = bool(self._lent) and storage_of(x) in self._lent
        if kept is not None and kept[:2] == (version, free) and version >= 0 and not lent:
            return kept[2]
        whole = part = x.detach()
        for k in free:
            part = part.narrow(k, 0, min(1, part.shape[k]))
        if self._lent and free and not _same_all_along(whole, part):
            part = whole  # it, or what it was computed from, was written to unseen
        if part.numel() <= SHOWN:
            values: Any = (str(part.dtype), *part.reshape(-1).tolist())
            values = tuple(v if v == v else math.nan for v in values)  # one that equals itself
        else:
            flat = part.resolve_conj().resolve_neg().cpu().reshape(-1).contiguous()
            values = ("digest", hash(flat.view(torch.uint8).numpy().tobytes()))
        self._values[x] = version, free, values
        return values


def _same_all_along(x: Tensor, part: Tensor) -> bool:
    """Return whether `x` is `part` expanded, where a NaN equals any other."""
    alike = x == part
    return bool((alike | ((x != x) & (part != part))).all())
