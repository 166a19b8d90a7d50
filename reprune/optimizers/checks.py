"""Check that parameters can be replaced by smaller ones in everything that trains them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..modules.sharded import local
from .keeper import Keeper, Parameters, fits, odd_kinds
from .walk import walk


def check_parameters(parameters: Parameters) -> None:
    """Raise `ValueError` if something attached to `parameters` cannot move to another tensor.

    These are hooks, and attributes that refer to parameters, to optimizers, or to tensors of another shape.
    """
    for name, parameter in parameters.items():
        for kind, hooks in (
            ("register_hook", parameter._backward_hooks),
            ("register_post_accumulate_grad_hook", getattr(parameter, "_post_accumulate_grad_hooks", None)),
        ):
            if hooks:
                raise ValueError(
                    f"model: expected parameters without hooks; got {name} with one ({kind}), which cannot "
                    "move to the smaller parameter that takes its place; remove it (its handle has remove()) "
                    "and register it again afterwards"
                )
        for attribute, value in vars(parameter).items():
            sliced = fits(value, parameter) and not isinstance(value, nn.Parameter)
            if not sliced and _holds_more(value):
                raise ValueError(
                    f"model: expected parameters without references to others or to optimizers; got {name} "
                    f"with the attribute {attribute!r} ({type(value).__name__}), which cannot move to the "
                    "smaller parameter that takes its place; delete it, and set it again afterwards"
                )


def check_references(keeper: Keeper, parameters: Parameters) -> None:
    """Raise `ValueError` if an optimizer refers to `parameters` outside of its groups."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    memory = {_memory(parameter): name for name, parameter in parameters.items()}
    grads = {_memory(p.grad): name for name, p in parameters.items() if p.grad is not None}
    count = _count(keeper)
    for found in keeper.tensors:
        at = _memory(found.value)
        name = names.get(id(found.value)) or (memory.get(at) if at else None)
        if not found.in_state:
            name = name or (grads.get(at) if at else None)
        if name or (not found.in_state and _is_flat(found.value, count)):
            raise ValueError(
                "optimizer: expected one that keeps parameters in its param_groups only; got "
                f"{found.path}, which {f'refers to {name}' if name else 'has the size of all of them'}: it "
                "would continue to update parameters that are no longer in the model. Prune first and make "
                "the optimizer afterwards, or use another"
            )


def check_states(keeper: Keeper, parameters: Parameters) -> None:
    """Raise `ValueError` if a state of one of `parameters` can neither be sliced nor stay as it is."""
    obstacle = state_obstacle(keeper, parameters)
    if obstacle:
        raise ValueError(
            f"optimizer: {obstacle}; only states of the parameter's shape and single numbers can be sliced.  "
            "Prune first and make the optimizer afterwards, or prune while training in mode='mask'"
        )


def state_obstacle(keeper: Keeper, parameters: Parameters) -> str:
    """Return why the states of `parameters` cannot be sliced, or "" if they can."""
    count = _count(keeper)
    for found in keeper.tensors:
        if found.in_state and _is_flat(found.value, count):
            return "it keeps a state that has the size of all parameters together"
    for states in keeper.states():
        odd = odd_kinds(states)
        for name, parameter in parameters.items():
            values = states.get(parameter, {})
            items = values.items() if isinstance(values, Mapping) else [("", values)]
            for kind, value in items:
                reason = _reason(value, parameter, kind in odd)
                if reason:
                    return f"state {kind!r} of {name}, which has shape {tuple(parameter.shape)}, {reason}"
    outside = {_memory(found.value): found.path for found in keeper.tensors if not found.in_state}
    starts: dict[int, str] = {}
    for entry in keeper.entries(parameters):
        mine = f"state {entry.kind!r} of {entry.name}"
        memory = _memory(entry.value)
        other = starts.setdefault(local(entry.value).data_ptr() or id(entry.value), mine)
        if other != mine or memory in outside:
            return f"{mine} shares its memory with {outside.get(memory, other)}"
    return ""


def _reason(value: Any, parameter: Tensor, odd: bool) -> str:
    """Return why the state `value` cannot follow `parameter`, or "" if it can."""
    if isinstance(value, Tensor):
        if fits(value, parameter):
            return "has the parameter's shape by chance only, as others of that kind show" if odd else ""
        if value.shape == parameter.shape:
            return f"is a {type(value).__name__}"
        return f"has shape {tuple(value.shape)}" if value.numel() > 1 else ""
    if isinstance(value, np.ndarray):
        return f"is an array of shape {value.shape}" if value.size > 1 else ""
    return f"is a {type(value).__name__} of tensors" if _holds_more(value) else ""


def _holds_more(value: Any) -> bool:
    """Return whether `value` leads to an optimizer or a tensor of more than one number."""
    return any(not isinstance(found.value, Tensor) or found.value.numel() > 1 for found in walk(value, ""))


def _count(keeper: Keeper) -> int:
    """Return how many numbers all parameters have together, or 0 if there is only one parameter."""
    held = keeper.held().values()
    return sum(p.numel() for p in held) if len(held) > 1 else 0


def _is_flat(tensor: Tensor, count: int) -> bool:
    return tensor.dim() == 1 and tensor.numel() == count


def _memory(tensor: Tensor) -> int:
    """Return where the memory of a plain tensor begins, or 0 if it has none of its own."""
    try:
        return local(tensor).untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # of a subclass, or fake
        return 0
