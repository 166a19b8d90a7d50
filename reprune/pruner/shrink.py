"""Implement the shrink mode: tensors shrink at every event and grow with regrown channels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from ..modules.sharded import Piece
from ..modules.slicing import (
    Positions,
    named_tensors,
    replace_tensors,
    replacement,
    slice_tensor,
    sliced_shape,
    write,
)
from ..optimizers import Keeper
from .compiled import CompiledCode
from .mode import Present
from .store import Layout, Store
from .structure import Structure
from .tracked import Tracked


class ShrinkMode:
    """Tensors hold the channels that are present and nothing else.

    With `restart` the optimizer's state is not sliced but starts anew.
    """

    small = True
    every = True

    def __init__(self, restart: bool = False) -> None:
        self.restart = restart

    @classmethod
    def of(cls, structure: Structure, model: nn.Module) -> ShrinkMode:
        return cls()

    @staticmethod
    def check_wrappers(around: Collection[str]) -> None:
        if {"DistributedDataParallel", "DataParallel"} & set(around):
            raise ValueError(
                "model: in mode='shrink' pass the module inside DistributedDataParallel (model.module) and "
                "wrap it anew where step() returns True; or use mode='mask'"
            )

    def check(self, tracked: Tracked, layout: Layout) -> None:
        tracked.check_hooks(layout)
        tracked.check_states(layout)

    def check_values(self, tracked: Tracked, layout: Layout) -> None:
        """Check nothing: `Tracked.check` has compared the shapes."""

    def shape(self, full: tuple[int, ...], where: Positions) -> tuple[int, ...]:
        return sliced_shape(full, where)

    def present(self, tensor: Tensor, piece: Piece, where: Positions) -> Present:
        return Present(tensor, piece.shape, where)

    def exchange(
        self, tracked: Tracked, store: Store, before: Layout, after: Layout, widths: Mapping[str, int]
    ) -> Callable[[], None]:
        news: list[dict[Tensor, Tensor]] = []
        for prefix, model in tracked.models():
            tensors = named_tensors(model)
            new: dict[Tensor, Tensor] = {}
            for name, where in after.items():
                old = tensors[name]
                value = store.take(f"{prefix}/{name}", where, old.device)
                move = partial(moved_grad, full=tracked.sizes[name], before=before[name], after=where)
                new[old] = replacement(old, value, move)
            news.append(new)
        keeper = Keeper(tracked.optimizer)
        parameters = {} if self.restart else tracked.parameters(after)
        carried = keeper.carried(parameters, lambda e: store.take(e.key, after[e.name], e.value.device))

        def change() -> None:
            for (_, model), new in zip(tracked.models(), news, strict=True):
                replace_tensors(model, new, widths)
            keeper.replace(news[0], carried)
            if self.restart:
                keeper.restart()

        return change

    def holder(self, tracked: Tracked, layout: Layout) -> Callable[[], None]:
        return lambda: None

    def changed(self, compiled: CompiledCode) -> None:
        compiled.drop_stale()

    def shrunk(
        self,
        tracked: Tracked,
        layout: Layout,
        absorb: Callable[[bool], None],
        store: Store,
        widths: Mapping[str, int],
    ) -> ShrinkMode:
        return self


def moved_grad(grad: Tensor, full: tuple[int, ...], before: Positions, after: Positions) -> Tensor:
    """Return a gradient in another layout, zero for regrown channels."""
    if grad.is_sparse:
        return moved_grad(grad.to_dense(), full, before, after).to_sparse(grad.sparse_dim())
    whole = torch.zeros(full, dtype=grad.dtype, device=grad.device)
    write(whole, before, grad.detach())
    out = slice_tensor(whole, after)
    channels_last = grad.dim() == 4 and not grad.is_contiguous()
    return out.contiguous(memory_format=torch.channels_last) if channels_last else out
