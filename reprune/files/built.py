"""Describe how a training was constructed, and compare it with the one that is given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from ..modules.wrappers import named_parameters, plain_state, unwrap
from ..optimizers import Keeper
from ..pruner import Pruner


def built_of(model: nn.Module, optimizer: Any, others: Mapping[str, Any]) -> dict[str, Any]:
    """Return the classes of `optimizer` and `others`, and each group's parameter names, as plain values."""
    names = {id(parameter): name for name, parameter in named_parameters(unwrap(model)[0]).items()}
    groups = [[names.get(id(p), "") for p in group["params"]] for group in optimizer.param_groups]
    kinds = {name: type(other).__name__ for name, other in others.items()}
    return {"optimizer": type(optimizer).__name__, "parameters": groups, "others": kinds}


def check_belong(model: nn.Module, optimizer: Any, pruner: Any) -> None:
    """Raise `TypeError` or `ValueError` unless `pruner` prunes `model` with `optimizer`."""
    if not isinstance(pruner, Pruner):
        raise TypeError(f"pruner: expected a reprune.Pruner; got a {type(pruner).__name__}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module; got a {type(model).__name__}")
    if unwrap(model)[0] is not pruner.model:
        raise ValueError("model: expected the one that the pruner was made with; got another")
    if Keeper(optimizer).held().keys() != Keeper(pruner.optimizer).held().keys():
        raise ValueError("optimizer: expected the one that the pruner was made with; got another")


def check_alike(
    content: Mapping[str, Any], model: nn.Module, optimizer: Any, others: Mapping[str, Any]
) -> None:
    """Raise `ValueError` unless the given objects are built as those in a file's `content`."""
    if content["others"].keys() != others.keys():
        raise ValueError(
            f"others: it has {_listed(content['others'])}, given are {_listed(others)}; give the same"
        )
    theirs = [len(group["params"]) for group in content["optimizer"]["param_groups"]]
    mine = [len(group["params"]) for group in optimizer.param_groups]
    if theirs != mine:
        raise ValueError(
            f"optimizer: it has groups of {theirs} parameters, this one has {mine}; build it as it was built "
            "then"
        )
    then, now = content.get("built"), built_of(model, optimizer, others)
    if then is None:  # a file of an earlier version
        return
    if then["optimizer"] != now["optimizer"]:
        raise ValueError(
            f"optimizer: it has the state of a {then['optimizer']}, given is a {now['optimizer']}; build it "
            "as it was built then"
        )
    for number, (old, new) in enumerate(zip(then["parameters"], now["parameters"], strict=True)):
        for k, (one, other) in enumerate(zip(old, new, strict=True)):
            if one != other:
                raise ValueError(
                    f"optimizer: in its group {number} parameter {k} is {one or 'unnamed'}, in the one "
                    f"given {other or 'unnamed'}; build it with the same order"
                )
    for name, kind in then["others"].items():
        if kind != now["others"][name]:
            raise ValueError(
                f"others[{name!r}]: it has the state of a {kind}, given is a {now['others'][name]}; give the "
                "same"
            )


def check_tensors(
    content: Mapping[str, Any], model: nn.Module, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise `ValueError` unless the state in `content` fits `model`, whose tensors have `shapes`."""
    mine, theirs = plain_state(model), content["model"]
    if mine.keys() != theirs.keys():
        name = min(mine.keys() ^ theirs.keys())
        raise ValueError(f"model: it {'has' if name in theirs else 'lacks'} {name}, unlike this one")
    for name, old in mine.items():
        if not isinstance(old, Tensor):
            continue
        new, size = theirs[name], shapes.get(name, tuple(old.shape))
        if not isinstance(new, Tensor) or tuple(new.shape) != size or new.dtype != old.dtype:
            what = f"{new.dtype} of shape {tuple(new.shape)}" if isinstance(new, Tensor) else "no tensor"
            raise ValueError(f"model: {name} is {what}, this one needs {old.dtype} of shape {size}")


def check_states(
    content: Mapping[str, Any], model: nn.Module, optimizer: Any, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise `ValueError` if a state of a parameter in `shapes` has another shape and is not one number."""
    names = {id(p): name for name, p in named_parameters(unwrap(model)[0]).items()}
    held = [names.get(id(p), "") for group in optimizer.param_groups for p in group["params"]]
    for number, values in content["optimizer"]["state"].items():
        size = shapes.get(held[number])
        for kind, value in values.items():
            many = size is not None and isinstance(value, Tensor) and value.numel() > 1
            if many and tuple(value.shape) != size:
                raise ValueError(
                    f"optimizer: its state {kind!r} of parameter {number} has shape {tuple(value.shape)} and "
                    f"{held[number]}, which is there, {size}; build it with the same order"
                )


def _listed(names: Iterable[Any]) -> str:
    return ", ".join(sorted(map(str, names))) or "none"
