"""Implement the shrink mode of a sharded model: the user's function shards a new one at events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..fsdp import Shard, resharded
from ..modules.exchange import Moved, fill, laid, moved
from ..modules.sharded import Piece, is_part, parted, whole
from ..modules.slicing import (
    Positions,
    named_tensors,
    replace_tensors,
    replacement,
    slice_tensor,
    sliced_shape,
)
from ..modules.twin import twin_of
from ..modules.wrappers import unwrap
from ..optimizers import Keeper
from .compiled import CompiledCode
from .mode import Present
from .shrink import ShrinkMode, moved_grad
from .store import Layout, Store
from .tracked import Tracked


class ReshardMode(ShrinkMode):
    """Tensors hold the channels that are present, and each process its part of them.

    The store of a process has its part of the tensors at full size, which have other rows than its part of
    the small ones. So what is stored and what comes back is joined, a tensor at a time.
    """

    def __init__(self, shard: Shard) -> None:
        super().__init__()
        self._shard = shard

    def present(self, tensor: Tensor, piece: Piece, where: Positions) -> Present:
        """Return what this process stores of `tensor`; collective if it is sharded."""
        values, there = whole(tensor), piece.positions(where)
        for dim, (begin, end) in piece.ranges().items():
            kept = where.get(dim, np.arange(piece.shape[dim]))
            first, last = np.searchsorted(kept, (begin, end))
            values = values.narrow(dim, int(first), int(last - first))
        return Present(values, piece.size(), there)

    def exchange(
        self, tracked: Tracked, store: Store, before: Layout, after: Layout, widths: Mapping[str, int]
    ) -> Callable[[], None]:
        """Prepare the new model, and return a function that puts it in the place of the old one."""
        pieces = tracked.pieces

        def present(key: str, name: str, device: torch.device) -> Tensor:
            """Return what is in the store, whole, at the positions that are present afterwards."""
            return slice_tensor(pieces[name].joined(store.full[key]), after[name]).to(device)

        def stored(key: str, name: str, value: Tensor, like: Tensor) -> Moved:
            """Move a part that is in the store, and from there comes back."""

            def take(here: Tensor, piece: Piece, where: Positions) -> None:
                fill(here, piece, pieces[name].joined(store.full[key]), where, {})

            piece = Piece.of(like)
            here = torch.empty(piece.size(), dtype=value.dtype, device=value.device)
            take(here, piece, after[name])
            return Moved(piece.part(here), partial(take, piece=Piece.of(value), where=before[name]))

        def move(name: str, kind: str, value: Tensor, like: Tensor) -> Moved:
            if name not in after:
                return laid(value, like)
            parts = is_part(value) and is_part(like)
            if kind == "gradient":
                if parts:
                    return moved(value, like, *common(before[name], after[name]))
                return Moved(
                    parted(moved_grad(whole(value), pieces[name].shape, before[name], after[name]), like)
                )
            key = kind or f"model/{name}"
            if parts:
                return stored(key, name, value, like)
            return Moved(parted(present(key, name, value.device), like))

        def gradient(name: str, value: Tensor) -> Tensor:
            return move(name, "gradient", value, value).value

        twin = twin_of(tracked.model)
        tensors, new = named_tensors(twin), dict[Tensor, Tensor]()
        for name, where in after.items():
            old = tensors[name]
            if old.is_meta:
                new[old] = replacement(old, old.new_empty(sliced_shape(pieces[name].shape, where)))
            else:
                value = present(f"model/{name}", name, old.device)
                new[old] = replacement(old, value, partial(gradient, name))
        replace_tensors(twin, new, widths)
        made, change = resharded(tracked.model, twin, self._shard, Keeper(tracked.optimizer), move)

        def put() -> None:
            change()
            tracked.model = unwrap(made)[0]

        return put

    def changed(self, compiled: CompiledCode) -> None:
        """Do nothing: the new model has no compiled code."""


def common(before: Positions, after: Positions) -> tuple[Positions, Positions]:
    """Return where a tensor in either layout has what is present in both."""
    both = {dim: np.intersect1d(before[dim], after[dim], assume_unique=True) for dim in after}
    return (
        {dim: np.searchsorted(before[dim], kept) for dim, kept in both.items()},
        {dim: np.searchsorted(after[dim], kept) for dim, kept in both.items()},
    )
