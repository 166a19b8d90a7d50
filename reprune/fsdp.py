"""Prune a model that `torch.distributed.fsdp.fully_shard` has sharded over processes (FSDP2).

:func:`reprune.make_plan` takes such a model as it is. No process ever holds more than its own part, and one
parameter or the layers of one group of channels. The parts are exchanged for smaller ones a tensor at a time
(:mod:`.modules.exchange`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import shown
from .distributed import check_alike, gathered, meet, together, undone
from .modules.exchange import Exchange, Moved, laid, moved
from .modules.sharded import check_reduced, is_part, is_sharded, parted, settle, sharded_modules, whole
from .modules.sharing import check_apart
from .modules.slicing import named_tensors, replace_tensors, replacement, slice_model, slice_tensor
from .modules.twin import twin_of
from .modules.wrappers import named_parameters, unwrap
from .optimizers import Entry, Keeper, check_parameters
from .plan import PruningPlan, plan_of, remember_plan
from .surgery import check_kinds, checked_keeper

__all__ = ["apply"]

Shard = Callable[[nn.Module], Any]
"""The user's function that shards a plain model, in place or by returning it."""
Move = Callable[[str, str, Tensor, Tensor], Moved]
"""See :func:`resharded`."""


@torch.inference_mode(False)
def apply(
    plan: PruningPlan,
    model: nn.Module,
    shard: Shard,
    optimizer: torch.optim.Optimizer | None = None,
) -> nn.Module:
    """Return `model`, which `fully_shard` has sharded, pruned as `plan` says and sharded anew.

    All processes call it alike. `fully_shard` keeps what it was made for, so the pruned model is a new one:
    continue with what this returns, and drop `model`, which is used up: the new one has the tensors that stay
    as they are, and the others are let go one after another, so that no process holds both models. The
    optimizer is the same one, holds the new parameters, and its state and the gradients are cut with them.

    Args:
        plan: A plan that :func:`reprune.make_plan` made for this model, sharded or before that.
        model: The model; what was around it, such as torch.compile, is left out.
        shard: A function that is given the pruned model, with plain parameters on the device "meta", and
            calls `fully_shard` for its blocks and itself, as was done for `model`. It may return the model,
            compiled for example, or nothing.
        optimizer: The optimizer that trains `model`, or None.

    Returns:
        What `shard` returned, or the model that it was given. Parameters are on the device of those of
        `model`.

    Raises:
        ValueError: The plan was made for another model; the processes have different plans or states; `shard`
            has changed more than how parameters are sharded; or as for :func:`reprune.apply`.
        TypeError: An argument has a wrong type, such as a model that is not sharded, or by something else.
        RuntimeError: Another process has failed, or `model` was pruned before and is used up.

        Then model and optimizer are as they were, on all processes: what had been exchanged until then was
        gathered anew. That takes all of them. Where one has ended, was interrupted by a signal, or has no
        memory to gather one tensor, the error says that model and optimizer have lost values: start again
        from a checkpoint.

    Examples:
        In every process of `torchrun`::

            def shard(model):
                for block in model.blocks:
                    fully_shard(block)
                fully_shard(model)

            shard(model)
            optimizer = torch.optim.AdamW(model.parameters())
            ...
            plan = reprune.make_plan(model, images, flops=0.5)
            model = reprune.fsdp.apply(plan, model, shard, optimizer)
    """
    check_kinds(plan, optimizer)
    if not callable(shard):
        raise TypeError(f"shard: expected a function that shards a model; got {shown(shard)}")
    model = unwrap(model)[0]
    if not is_sharded(model):
        raise TypeError(
            "model: expected one whose parameters fully_shard has sharded; got one with plain parameters; "
            "reprune.apply prunes it in place"
        )
    if _used_up in model._forward_pre_hooks.values():
        _used_up()
    with together("apply"):
        twin = twin_of(model)
        plan.check(twin)
        check_apart(named_tensors(twin), plan.slices, "surgery")
        parameters = named_parameters(model)
        check_parameters(parameters)
        keeper = None if optimizer is None else checked_keeper(optimizer, named_tensors(model), parameters)
        _check_alike(plan, parameters, keeper)
        first = plan_of(model)
        replace_tensors(twin, slice_model(twin, plan.slices), plan.widths, plan.slices)

        def move(name: str, kind: str, value: Tensor, like: Tensor) -> Moved:
            kept = plan.slices.get(name, {})
            if not kept:
                return laid(value, like)
            if is_part(value) and is_part(like):
                return moved(value, like, kept, {})
            return Moved(parted(slice_tensor(whole(value), kept), like))

        made, change = resharded(model, twin, shard, keeper, move)
    change()
    remember_plan(unwrap(made)[0], plan, first)
    return made


def resharded(
    model: nn.Module, twin: nn.Module, shard: Shard, keeper: Keeper | None, move: Move
) -> tuple[nn.Module, Callable[[], None]]:
    """Return what `shard` makes of `twin`, and a function that gives it and `keeper` the values of `model`.

    `move(name, kind, value, like)` returns what becomes of a value of the parameter `name` of `model`, laid
    out as `like`, the new parameter: of its own (kind ""), its gradient ("gradient") or a state (its key).
    What is moved leaves `model` and `keeper` at once, so the function has to be called. Stands in a block
    :func:`reprune.distributed.together`; if a process fails here, all of them have all as it was.
    """
    check_reduced(model)
    parameters = named_parameters(model)
    made = sharded_by(shard, twin)
    small = unwrap(made)[0]
    new: dict[Tensor, Tensor] = {}
    filled: dict[Tensor, Tensor] = {}
    exchange = Exchange(model)

    def carried_to(entry: Entry) -> Tensor:
        value = exchange.take(
            entry.value, move(entry.name, entry.key, entry.value, new[parameters[entry.name]])
        )
        exchange.commit()
        return value

    def undo() -> None:
        new.clear()
        filled.clear()
        exchange.undo()

    with undone(undo):
        for name, like in named_parameters(small).items():
            old = parameters[name]
            new[old] = like
            if like.is_meta:
                along = partial(_along, exchange, move, name, old, like)
                new[old] = filled[like] = replacement(
                    old, exchange.take(old, move(name, "", old, like)), along
                )
                exchange.commit()
        carried = keeper.carried(parameters, carried_to) if keeper else []
    exchange.end()

    def change() -> None:
        replace_tensors(small, filled)
        if keeper:
            keeper.replace(new, carried)
        for module in (model, *sharded_modules(model)):
            module.register_forward_pre_hook(_used_up, prepend=True)

    return made, change


def _used_up(*_: Any) -> None:
    raise RuntimeError(
        "model: expected the one that reprune made of this when it was pruned; this one has given its "
        "parameters to it, so continue with what reprune.fsdp.apply returned, or with pruner.model"
    )


def _along(exchange: Exchange, move: Move, name: str, old: Tensor, like: Tensor, value: Tensor) -> Tensor:
    """Move a `value` that is attached to `old`; of these only the gradient goes."""
    to = move(name, "gradient", value, like)
    return exchange.take(value, to) if value is old.grad else to.value


def sharded_by(shard: Shard, plain: nn.Module) -> nn.Module:
    """Return what `shard` makes of the `plain` model; raise unless it is the same network."""
    before = _described(plain)
    made = shard(plain)
    made = plain if made is None else made
    if not isinstance(made, nn.Module):
        raise TypeError(f"shard: expected it to return the model that it was given; got {shown(made)}")
    inner = unwrap(made)[0]
    settle(inner)
    if not is_sharded(inner):
        raise ValueError("shard: expected a function that calls fully_shard; nothing of the model is sharded")
    after = _described(inner)
    for name in before | after:
        if before.get(name) != after.get(name):
            raise ValueError(
                f"shard: expected a function that calls fully_shard and changes nothing else; {name} was "
                f"{before.get(name, 'not there')} and is {after.get(name, 'gone')}"
            )
    return made


def _described(model: nn.Module) -> dict[str, str]:
    return {name: f"{t.dtype} of shape {tuple(t.shape)}" for name, t in named_tensors(model).items()}


def _check_alike(plan: PruningPlan, parameters: Mapping[str, Tensor], keeper: Keeper | None) -> None:
    """Raise `ValueError` unless all processes have this plan, these gradients and these states."""
    entries = keeper.entries(parameters) if keeper else []
    mine = {
        "the plan": hashlib.sha256(plan.to_json().encode()).hexdigest(),
        "the list of gradients": repr([name for name, p in parameters.items() if p.grad is not None]),
        "the list of the optimizer's states": repr([entry.key for entry in entries]),
    }
    meet()
    check_alike(gathered(mine), "apply")
