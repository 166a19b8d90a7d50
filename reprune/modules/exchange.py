"""Exchange the parts of a sharded model's tensors one after another, so that all processes can go back.

A process never holds a second model: an old part goes before the next tensor is gathered. What slicing
leaves out of a tensor is kept until all are exchanged, in parts as the tensor was, so that new part and rest
together have its size; from both the old part can be made anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..distributed import meet
from .sharded import Piece, is_part, parameters_in_parts, parted, whole
from .slicing import Positions, slice_tensor, sliced_shape, write


@dataclass(frozen=True)
class Moved:
    """What takes the place of a tensor."""

    value: Tensor
    restore: Callable[[Tensor], None] | None = None
    """Writes what this process had of the old one into memory of its shape, collective; None if the old one
    is to stay as it is."""


class Exchange:
    """The parts of a model and its optimizer that were let go, in their order."""

    def __init__(self, model: nn.Module) -> None:
        self._keepers = dict(parameters_in_parts(model))
        self._ready: dict[int, _Part] = {}
        self._gone: list[_Part] = []

    def take(self, old: Tensor, moved: Moved) -> Tensor:
        """Return what takes the place of `old`, which goes at the next :meth:`commit` if it can come back.

        Until then it is as it was.
        """
        if moved.restore is not None:
            self._ready[id(old)] = _Part(old, self._keepers.get(id(old)), moved.restore)
        return moved.value

    def commit(self) -> None:
        """Let go of the old parts for which others were taken, once all processes have got so far."""
        if not self._ready:
            return
        meet()  # what follows does not fail
        for part in self._ready.values():
            part.go()
        self._gone.extend(self._ready.values())
        self._ready.clear()

    def undo(self) -> None:
        """Restore all parts that were let go, the last one first; collective."""
        self._ready.clear()
        while self._gone:
            self._gone.pop().come_back()

    def end(self) -> None:
        """Drop what is needed to go back."""
        self._gone.clear()


def moved(old: Tensor, like: Tensor, source: Positions, target: Positions) -> Moved:
    """Return the positions `source` of `old` at the positions `target` of zeros, laid out as `like`.

    Both are sharded. It is collective.
    """
    was, full = Piece.of(old), whole(old)
    value = _filled(Piece.of(like), full, source, target)
    rest = [
        (where, _filled(Piece(sliced_shape(was.shape, where), was.mesh, was.placements), full, where, {}))
        for where in _left_out(was.shape, source)
    ]

    def restore(here: Tensor) -> None:
        fill(here, was, whole(value), target, source)
        for where, part in rest:
            fill(here, was, whole(part), {}, where)

    return Moved(value, restore)


def laid(value: Tensor, like: Tensor) -> Moved:
    """Return all of `value`, in parts as `like` is; collective if `value` lies otherwise."""
    if not is_part(value) or not is_part(like):
        return Moved(parted(whole(value), like))
    mine, other = Piece.of(value), Piece.of(like)
    if (mine.mesh, mine.placements) == (other.mesh, other.placements):
        return Moved(value.detach())
    return moved(value, like, {}, {})


def fill(here: Tensor, piece: Piece, full: Tensor, source: Positions, target: Positions) -> None:
    """Write the positions `source` of the whole tensor `full` to the positions `target` of another one.

    `here` is what this process holds of the other one, its `piece`.
    """
    mine: dict[int, Any] = {}
    there = dict(target)
    for dim, (begin, end) in piece.ranges().items():
        to = target.get(dim, np.arange(piece.shape[dim]))
        inside = (begin <= to) & (to < end)
        mine[dim] = source.get(dim, np.arange(full.shape[dim]))[inside]
        there[dim] = to[inside] - begin
    write(here, there, slice_tensor(full, {**mine, **{dim: source[dim] for dim in source.keys() - mine}}))


def _filled(piece: Piece, full: Tensor, source: Positions, target: Positions) -> Tensor:
    """Return a `piece` of zeros with the positions `source` of `full` at `target`."""
    here = full.new_zeros(piece.size())
    fill(here, piece, full, source, target)
    return piece.part(here)


def _left_out(shape: tuple[int, ...], kept: Positions) -> list[Positions]:
    """Return blocks that have together what slicing to `kept` leaves out of a tensor of `shape`."""
    blocks: list[Positions] = []
    before: dict[int, Any] = {}
    for dim, positions in kept.items():
        gone = np.setdiff1d(np.arange(shape[dim]), positions)
        if gone.size:
            blocks.append({**before, dim: gone})
        before[dim] = positions
    return blocks


class _Part:
    """What a process holds of a tensor, which can go and come back.

    Who uses it in between meets an error, and others who refer to its memory still have it. `keeper` is what
    `fully_shard` keeps of a parameter: it refers to that memory and what lies around the part.
    """

    def __init__(self, part: Any, keeper: Any, restore: Callable[[Tensor], None]) -> None:
        local, around = part._local_tensor, getattr(keeper, "_sharded_param_data", None)
        assert Piece.of(part).size() == tuple(local.shape)
        if around is not None and _memory(around) != _memory(local):
            around = None  # as after a load, before the next pass
        all_around = local if around is None else around
        self._part, self._keeper, self._restore = part, keeper if around is not None else None, restore
        self._learns, self._pinned, self._device = local.requires_grad, local.is_pinned(), local.device
        self._start = local.storage_offset() - all_around.storage_offset()
        self._like = [t.detach().to("meta") for t in (all_around, local)]
        self._nothing = local.detach().new_empty(0)

    def go(self) -> None:
        """Refer to its memory no more."""
        self._part._local_tensor = self._nothing
        if self._keeper is not None:
            self._keeper._sharded_param_data = self._nothing

    def come_back(self) -> None:
        """Restore it; collective."""
        device = "cpu" if self._pinned else self._device
        around = torch.zeros_like(self._like[0], device=device, pin_memory=self._pinned)
        here = around.as_strided(self._like[1].shape, self._like[1].stride(), self._start)
        self._restore(here)
        self._part._local_tensor = here.requires_grad_(self._learns)
        if self._keeper is not None:
            self._keeper._sharded_param_data = around


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
