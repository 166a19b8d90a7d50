"""Change all of a training's objects or none: an error restores them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..modules import rng
from ..optimizers import Keeper
from ..pruner import Pruner


@contextmanager
def all_or_nothing(pruner: Pruner, optimizer: Any, others: Mapping[str, Any]) -> Iterator[Callable[[], None]]:
    """Restore the training and its generators, bit for bit, if the block ends with an error.

    These are the pruner, its model and copies and the optimizer; each of `others` gets back the state
    that its `state_dict()` returned before.

    The block has to call the function that it gets before it overwrites values of modules: these are copied
    at that time. Tensors that were replaced by smaller ones are not copied.
    """
    whole = [pruner.model, *pruner.copies, *(o for o in others.values() if isinstance(o, nn.Module))]
    modules = list({id(m): m for module in whole for m in module.modules()}.values())
    tensors = _tensors_of(modules)
    parts = [t.grad for t in tensors.values() if t.grad is not None]
    parts += [found.value for found in Keeper(optimizer).tensors]
    kept: dict[int, tuple[Tensor, Tensor]] = {}

    def keep() -> None:
        _copy_each([t for number, t in _tensors_of(modules).items() if number in tensors], kept)

    with ExitStack() as undo:
        states = rng.generators()
        undo.callback(lambda: rng.restore(states))
        for other in others.values():
            if not isinstance(other, nn.Module):
                undo.callback(_of_other(other))
        undo.callback(pruner.live.undo())
        for part in (*Keeper(pruner.optimizer).parts, *Keeper(optimizer).parts):
            undo.callback(_of_optimizer(part))
        for module in modules:
            for found in (vars(module), module._parameters, module._buffers, module._modules):
                undo.callback(_of_dict(found))
        _copy_each(parts, kept)
        undo.callback(_put_back, kept)
        yield keep
        undo.pop_all()  # all went well


def _tensors_of(modules: Iterable[nn.Module]) -> dict[int, Tensor]:
    """Return {id: tensor} of the modules' parameters and buffers."""
    found = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    return {id(t): t for t in found}


def _copy_each(tensors: Iterable[Tensor], kept: dict[int, tuple[Tensor, Tensor]]) -> None:
    for tensor in tensors:
        if id(tensor) not in kept:
            kept[id(tensor)] = tensor, tensor.detach().clone()


@torch.no_grad()
def _put_back(kept: Mapping[int, tuple[Tensor, Tensor]]) -> None:
    for tensor, value in kept.values():
        tensor.copy_(value)


def _of_dict(found: dict[Any, Any]) -> Callable[[], None]:
    before = dict(found)

    def put_back() -> None:
        found.clear()
        found.update(before)

    return put_back


def _of_optimizer(part: Any) -> Callable[[], None]:
    """Return a function that restores the optimizer's attributes, dictionaries and groups.

    The same dictionary objects are kept.
    """
    undo = [_of_dict(group) for group in part.param_groups]
    lists = [(group["params"], [*group["params"]]) for group in part.param_groups]
    lists.append((part.param_groups, [*part.param_groups]))
    now = getattr(part, "state", {})
    states = {p: copy.copy(values) for p, values in now.items()}
    own = getattr(part, "__dict__", {})
    undo += [_of_dict(value) for value in (own, *own.values()) if isinstance(value, dict)]

    def put_back() -> None:
        for one in undo:
            one()
        now.update(states)
        for items, before in lists:
            if isinstance(items, list):
                items[:] = before

    return put_back


def _of_other(other: Any) -> Callable[[], None]:
    generator = isinstance(other, torch.Generator)
    before = other.get_state() if generator else copy.deepcopy(other.state_dict())

    def put_back() -> None:
        (other.set_state if generator else other.load_state_dict)(before)

    return put_back
