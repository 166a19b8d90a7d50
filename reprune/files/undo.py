"""All of a training's objects are changed, or none: after an error they are put back as they were."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..optimizers import Keeper
from ..pruner import Pruner
from . import rng


@contextmanager
def all_or_nothing(pruner: Pruner, optimizer: Any, others: Mapping[str, Any]) -> Iterator[None]:
    """If the block ends with an error, put back the pruner, its model and copies, the optimizer and the
    random number generators to the bit, and give each of `others` the state that its `state_dict()` told
    before."""
    whole = [pruner.model, *pruner.copies, *(o for o in others.values() if isinstance(o, nn.Module))]
    modules = {id(m): m for module in whole for m in module.modules()}.values()
    tensors = [t for m in modules for t in (*m._parameters.values(), *m._buffers.values()) if t is not None]
    tensors += [t.grad for t in tensors if t.grad is not None]
    tensors += [found.value for found in Keeper(optimizer).tensors]
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
        undo.callback(_of_tensors(tensors))
        yield
        undo.pop_all()  # all went well


def _of_dict(found: dict[Any, Any]) -> Callable[[], None]:
    before = dict(found)

    def put_back() -> None:
        found.clear()
        found.update(before)

    return put_back


def _of_tensors(tensors: list[Tensor]) -> Callable[[], None]:
    before = [(t, t.detach().clone()) for t in {id(t): t for t in tensors}.values()]

    @torch.no_grad()
    def put_back() -> None:
        for tensor, value in before:
            tensor.copy_(value)

    return put_back


def _of_optimizer(part: Any) -> Callable[[], None]:
    """Its attributes, and what is in its dictionaries and groups: in the objects that these are."""
    undo = [_of_dict(group) for group in part.param_groups]
    lists = [(group["params"], [*group["params"]]) for group in part.param_groups]
    lists.append((part.param_groups, [*part.param_groups]))
    state = getattr(part, "state", {})
    states = {p: copy.copy(values) for p, values in state.items()}
    own = getattr(part, "__dict__", {})
    undo += [_of_dict(value) for value in (own, *own.values()) if isinstance(value, dict)]

    def put_back() -> None:
        for one in undo:
            one()
        state.update(states)
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
