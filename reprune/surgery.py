"""Apply a plan by slicing a model's tensors, and the optimizer's state with them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .arguments import shown
from .modules.sharing import check_apart
from .modules.slicing import named_tensors, replace_tensors, slice_model, slice_tensor
from .modules.wrappers import changeable
from .optimizers import Entry, Keeper, check_parameters, check_references, check_states
from .plan import PruningPlan, plan_of, remember_plan


@torch.inference_mode(False)
def apply(plan: PruningPlan, model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Prune `model` in place as `plan` says.

    Parameters that lose channels are replaced by new, smaller ones with the same values and gradients. The
    optimizer's state (momentum, moments) is sliced with the weights, so that training continues.

    Args:
        plan: A plan that :func:`make_plan` made for this model.
        model: The model. In torch.compile, DataParallel or AveragedModel it is changed inside.
        optimizer: The optimizer that trains it, or None. It holds the new parameters afterwards.

    Raises:
        ValueError: The plan was made for another model; the optimizer holds none of the model's parameters,
            keeps a state that cannot be sliced, or refers to parameters otherwise than by its groups; a
            parameter has hooks; the model is in DistributedDataParallel, or sharded (for which there is
            :func:`reprune.fsdp.apply`). Then model and optimizer are as they were.
        TypeError: An argument has a wrong type.

    Examples:
        >>> import torch, reprune
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> plan = reprune.make_plan(model, torch.randn(2, 3, 8, 8), keep={"0": 4})
        >>> reprune.apply(plan, model, optimizer)
        >>> [tuple(p.shape) for p in optimizer.param_groups[0]["params"]][:2]
        [(4, 3, 3, 3), (4,)]
    """
    check_kinds(plan, optimizer)
    model = changeable(model)
    plan.check(model)
    tensors = named_tensors(model)
    check_apart(tensors, plan.slices, "surgery")
    parameters = {name: t for name in plan.slices if isinstance(t := tensors[name], nn.Parameter)}
    check_parameters(parameters)
    keeper = None if optimizer is None else checked_keeper(optimizer, tensors, parameters)
    first = plan_of(model)
    new = slice_model(model, plan.slices)

    def sliced(entry: Entry) -> Tensor:
        return slice_tensor(entry.value, plan.slices[entry.name])

    carried = keeper.carried(parameters, sliced) if keeper else []
    replace_tensors(model, new, plan.widths, plan.slices)
    if keeper:
        keeper.replace(new, carried)
    remember_plan(model, plan, first)


def check_kinds(plan: object, optimizer: object) -> None:
    """Raise `TypeError` unless `plan` is a plan and `optimizer` an optimizer or None."""
    if not isinstance(plan, PruningPlan):
        raise TypeError(f"plan: expected a PruningPlan, such as make_plan returns; got {shown(plan)}")
    if optimizer is not None and not hasattr(optimizer, "param_groups"):
        raise TypeError(f"optimizer: expected a torch.optim.Optimizer or None; got {shown(optimizer)}")


def checked_keeper(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]
) -> Keeper:
    """Return what `optimizer` keeps; raise `ValueError` unless it can keep other ones for `parameters`.

    It must hold some of `tensors`, all of the model's.
    """
    keeper = Keeper(optimizer)
    if not any(id(t) in keeper.held() for t in tensors.values()):
        raise ValueError(
            "optimizer: expected one that holds parameters of the model; got one that holds none of them; "
            "make it from model.parameters() of the same model"
        )
    check_references(keeper, parameters)
    check_states(keeper, parameters)
    return keeper
