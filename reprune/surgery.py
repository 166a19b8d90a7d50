"""Surgery: a plan is applied by slicing tensors, and the optimizer's state with them."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec

import torch
from torch import Tensor, nn

from .graph import cut, cut_all, named_tensors, put
from .plan import PruningPlan, remember_plan
from .planner import make_plan


def apply(plan: PruningPlan, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Make `model` smaller, in place, as `plan` says.

    Parameters that lose channels are replaced by new, smaller ones with the same values (and gradients).  An
    `optimizer` then holds these, with its state (momentum, moments) sliced alike, so that training goes on.

    Raises ``ValueError`` if the plan was not made for this model, if the optimizer holds none of the model's
    parameters, or if it keeps a state that cannot be sliced.  After an error model and optimizer are as
    they were.
    """
    tensors = named_tensors(model)
    plan.check(tensors)
    new = cut_all(model, plan.slices)
    state = {} if optimizer is None else _sliced_state(plan, tensors, optimizer)
    put(model, new)
    if optimizer is not None:
        replace_parameters(optimizer, new, state)
    remember_plan(model, plan)


Arguments = ParamSpec("Arguments")


def _on_a_copy(
    make: Callable[Concatenate[nn.Module, Arguments], PruningPlan],
) -> Callable[Concatenate[nn.Module, Arguments], tuple[nn.Module, PruningPlan]]:
    """`make`, with its arguments, followed by :func:`apply` to a copy of the model."""

    def prune(
        model: nn.Module, *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> tuple[nn.Module, PruningPlan]:
        """A smaller copy of `model`, and the plan that made it; :func:`make_plan` describes the arguments and
        errors."""
        plan = make(model, *args, **kwargs)
        small = copy.deepcopy(model)
        apply(plan, small)
        return small, plan

    result = "tuple[nn.Module, PruningPlan]"
    prune.__signature__ = inspect.signature(make).replace(return_annotation=result)  # type: ignore[attr-defined]
    prune.__qualname__ = "prune"
    return prune  # type: ignore[return-value]  # which takes its model by name too


prune = _on_a_copy(make_plan)


def _sliced_state(
    plan: PruningPlan, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[Tensor, dict[str, Any]]:
    """{parameter that is cut: its state, cut}; the optimizer is not changed."""
    held = held_by(optimizer)
    if not any(id(t) in held for t in tensors.values()):
        raise ValueError(
            "optimizer: expected one that holds parameters of the model, got one that holds none of "
            "them; make it from "
            "model.parameters() of the same model"
        )
    states: dict[Tensor, dict[str, Any]] = {}
    for name, kept in plan.slices.items():
        parameter = tensors[name]
        if parameter in optimizer.state:
            states[parameter] = {
                key: _sliced_value(name, key, value, parameter, kept)
                for key, value in optimizer.state[parameter].items()
            }
    return states


def held_by(optimizer: torch.optim.Optimizer) -> set[int]:
    """The ids of the parameters that `optimizer` holds."""
    return {id(p) for group in optimizer.param_groups for p in group["params"]}


def _sliced_value(name: str, key: str, value: Any, parameter: Tensor, kept: Mapping[int, Any]) -> Any:
    return cut(value, kept) if can_be_sliced(name, key, value, parameter) else value


def can_be_sliced(name: str, key: str, value: Any, parameter: Tensor) -> bool:
    """Is state `key` of parameter `name` a tensor of its shape?  ``ValueError`` if it is one of another."""
    if not isinstance(value, Tensor) or (value.numel() == 1 and value.shape != parameter.shape):
        return False
    if value.shape != parameter.shape:
        raise ValueError(
            f"optimizer: state {key!r} of {name} has shape {tuple(value.shape)}; only states of the "
            f"parameter's shape "
            f"{tuple(parameter.shape)} and single numbers can be sliced.  Prune first and make the "
            f"optimizer afterwards"
        )
    return True


def replace_parameters(
    optimizer: torch.optim.Optimizer, new: Mapping[Tensor, Tensor], state: Mapping[Tensor, dict[str, Any]]
) -> None:
    """Let `optimizer` hold `new` {old: new} in place of the old, each with the `state` {old: state}."""
    for group in optimizer.param_groups:
        group["params"] = [new.get(p, p) for p in group["params"]]
    for old in new:
        optimizer.state.pop(old, None)
    for old, values in state.items():
        optimizer.state[new[old]] = values
