"""Surgery: a plan is applied by slicing tensors, and the optimizer's state with them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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


def prune(
    model: nn.Module,
    example_inputs: Any,
    *,
    sparsity: float | None = None,
    flops: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    size_mb: float | None = None,
    keep: Mapping[str, int] | None = None,
    rule: str = "bn",
    scope: str = "internal",
    layers: str = "conv",
    round_to: int = 1,
    min_keep: int | Mapping[str, int] = 1,
    ignore: Sequence[str] = (),
    time_limit: float | None = None,
    seed: int = 0,
    ties: str = "random",
    backend: str = "auto",
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[nn.Module, PruningPlan]:
    """A smaller copy of `model`, and the plan that made it; :func:`make_plan` describes the arguments and
    errors."""
    plan = make_plan(
        model,
        example_inputs,
        sparsity=sparsity,
        flops=flops,
        params=params,
        latency=latency,
        size_mb=size_mb,
        keep=keep,
        rule=rule,
        scope=scope,
        layers=layers,
        round_to=round_to,
        min_keep=min_keep,
        ignore=ignore,
        time_limit=time_limit,
        seed=seed,
        ties=ties,
        backend=backend,
        progress=progress,
    )
    small = copy.deepcopy(model)
    apply(plan, small)
    return small, plan


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
