"""How it is enforced which channels are there; one of the two ways: smaller tensors.

Both are given the store, which has every value; they differ only in what stands in the model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from ..modules.slicing import named_tensors, replace_tensors, replacement, slice_tensor, sliced_shape
from ..optimizers import Keeper
from .members import Members
from .store import Layout, Positions, Store, write


class Enforcement(Protocol):
    """How a layout is made to hold."""

    every: bool
    """Every state of the optimizer has to be one that can be cut."""

    def shape(self, full: tuple[int, ...], where: Positions) -> tuple[int, ...]:
        """Shape in the model of a tensor of shape `full`."""

    def live(self, tensor: Tensor, where: Positions) -> Tensor:
        """The values at the positions that are there."""

    def exchange(self, members: Members, store: Store, before: Layout, after: Layout) -> Callable[[], None]:
        """Make ready to change the tensors named in `after` from one layout to the other, with values of the
        store; what is returned does it."""


class Shrink:
    """Tensors hold what is there and nothing else.

    With ``restart`` the optimizer's state is not cut: it starts anew.
    """

    every = True

    def __init__(self, restart: bool = False) -> None:
        self.restart = restart

    def shape(self, full: tuple[int, ...], where: Positions) -> tuple[int, ...]:
        return sliced_shape(full, where)

    def live(self, tensor: Tensor, where: Positions) -> Tensor:
        return tensor

    def exchange(self, members: Members, store: Store, before: Layout, after: Layout) -> Callable[[], None]:
        news: list[dict[Tensor, Tensor]] = []
        for prefix, model in members.models():
            tensors = named_tensors(model)
            new: dict[Tensor, Tensor] = {}
            for name, where in after.items():
                old = tensors[name]
                value = store.take(f"{prefix}/{name}", where, old.device)
                move = partial(_moved, full=members.sizes[name], before=before[name], after=where)
                new[old] = replacement(old, value, move)
            news.append(new)
        keeper = Keeper(members.optimizer)
        parameters = {} if self.restart else members.parameters(after)
        carried = keeper.carried(parameters, lambda e: store.take(e.key, after[e.name], e.value.device))

        def change() -> None:
            for (_, model), new in zip(members.models(), news, strict=True):
                replace_tensors(model, new)
            keeper.replace(news[0], carried)
            if self.restart:
                keeper.restart()

        return change


def _moved(grad: Tensor, full: tuple[int, ...], before: Positions, after: Positions) -> Tensor:
    """A gradient in another layout; zero for channels that come back."""
    if grad.is_sparse:
        return _moved(grad.to_dense(), full, before, after).to_sparse(grad.sparse_dim())
    whole = torch.zeros(full, dtype=grad.dtype, device=grad.device)
    write(whole, before, grad.detach())
    out = slice_tensor(whole, after)
    channels_last = grad.dim() == 4 and not grad.is_contiguous()
    return out.contiguous(memory_format=torch.channels_last) if channels_last else out
