"""The two ways to enforce which channels are there: smaller tensors, or zeros in tensors of full size.

Both are given the store, which has every value; they differ only in what stands in the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..graph import cut, named_tensors, put, sliced_shape, successor
from ..optimizers import Keeper
from ..wrappers import named_parameters
from .members import Members
from .store import Positions, Store, write

Layout = Mapping[str, Positions]
"""{tensor: {dimension: positions that are there}}."""


class Enforcement(Protocol):
    """How a layout is made to hold."""

    every: bool
    """Every state of the optimizer has to be one that can be cut."""

    def shape(self, full: tuple[int, ...], where: Positions) -> tuple[int, ...]:
        """Shape in the model of a tensor of shape `full`."""

    def live(self, tensor: Tensor, where: Positions) -> Tensor:
        """The values at the positions that are there."""

    def exchange(self, members: Members, store: Store, before: Layout, after: Layout) -> None:
        """Change the tensors named in `after` from one layout to the other, with values of the store."""


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

    def exchange(self, members: Members, store: Store, before: Layout, after: Layout) -> None:
        news: list[dict[Tensor, Tensor]] = []
        for prefix, model in members.models():
            tensors = named_tensors(model)
            new: dict[Tensor, Tensor] = {}
            for name, where in after.items():
                old = tensors[name]
                value = store.take(f"{prefix}/{name}", where, old.device)
                move = partial(_moved, full=members.sizes[name], before=before[name], after=where)
                new[old] = successor(old, value, move)
            news.append(new)
        keeper = Keeper(members.optimizer)
        parameters = {} if self.restart else members.parameters(after)
        carried = keeper.carried(parameters, lambda e: store.take(e.key, after[e.name], e.value.device))
        for (_, model), new in zip(members.models(), news, strict=True):
            put(model, new)
        keeper.replace(news[0], carried)
        if self.restart:
            keeper.restart()


class Mask:
    """Tensors keep their size; every position that is not there is zero."""

    every = False

    def shape(self, full: tuple[int, ...], where: Positions) -> tuple[int, ...]:
        return full

    def live(self, tensor: Tensor, where: Positions) -> Tensor:
        return cut(tensor, where)

    @torch.no_grad()
    def exchange(self, members: Members, store: Store, before: Layout, after: Layout) -> None:
        def fill(tensor: Tensor, key: str, where: Positions) -> None:
            part = store.take(key, where, tensor.device)
            tensor.detach().zero_()
            write(tensor.detach(), where, part)

        for prefix, model in members.models():
            tensors = named_tensors(model)
            for name, where in after.items():
                tensor = tensors[name]
                fill(tensor, f"{prefix}/{name}", where)
                if tensor.grad is not None:
                    tensor.grad.copy_(zeroed(zeroed(tensor.grad, before[name]), where))
        for entry in members.states(after, every=False):
            fill(entry.value, entry.key, after[entry.name])


def holder(members: Members, layout: Layout) -> Callable[[], None]:
    """A function that sets to zero what is not there, in the model's parameters."""
    parameters = named_parameters(members.model)
    work = [
        (parameters[name], dim, torch.from_numpy(gone).to(parameters[name].device))
        for name, where in layout.items()
        if name in parameters
        for dim, gone in missing(parameters[name].shape, where)
    ]

    @torch.no_grad()
    def hold() -> None:
        for parameter, dim, index in work:
            parameter.index_fill_(dim, index, 0)

    return hold


def missing(shape: tuple[int, ...], where: Positions) -> list[tuple[int, Any]]:
    """[(dimension, positions that are not there)], where there are some."""
    found = [(dim, np.setdiff1d(np.arange(shape[dim]), kept)) for dim, kept in where.items()]
    return [(dim, gone) for dim, gone in found if gone.size]


def zeroed(tensor: Tensor, where: Positions) -> Tensor:
    """`tensor` with zeros at the positions that are not there."""
    if tensor.is_sparse:
        return zeroed(tensor.to_dense(), where).to_sparse(tensor.sparse_dim())
    out = tensor.detach().clone()
    for dim, gone in missing(out.shape, where):
        out.index_fill_(dim, torch.from_numpy(gone).to(out.device), 0)
    return out


def _moved(grad: Tensor, full: tuple[int, ...], before: Positions, after: Positions) -> Tensor:
    """A gradient in another layout; zero for channels that come back."""
    if grad.is_sparse:
        return _moved(grad.to_dense(), full, before, after).to_sparse(grad.sparse_dim())
    whole = torch.zeros(full, dtype=grad.dtype, device=grad.device)
    write(whole, before, grad.detach())
    out = cut(whole, after)
    channels_last = grad.dim() == 4 and not grad.is_contiguous()
    return out.contiguous(memory_format=torch.channels_last) if channels_last else out
