"""Wrappers around a network or its parts: what is planned, cut and saved is inside, under its own names."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")

WRAPPERS = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "ModelEmaV2": "module",  # timm
    "ModelEmaV3": "module",
}
"""{class: where it holds what it wraps}; subclasses and namesakes of other packages do alike."""

AVERAGES = {"AveragedModel", "ModelEmaV2", "ModelEmaV3"}
"""Those whose module is not the one that was given, but a copy with averaged values."""


def inside(module: nn.Module) -> str | None:
    """The attribute that holds the module in `module`; None if that is no wrapper."""
    for kind in type(module).__mro__:
        attribute = WRAPPERS.get(kind.__name__)
        if attribute is not None and module._modules.get(attribute) is not None:
            return attribute
    return None


def unwrap(model: nn.Module) -> tuple[nn.Module, set[str]]:
    """The user's own module inside all wrappers, and which of `WRAPPERS` were around it."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module; got {' '.join(repr(model).split())[:80]}")
    around: set[str] = set()
    while (attribute := inside(model)) is not None:
        around |= {kind.__name__ for kind in type(model).__mro__} & WRAPPERS.keys()
        inner = model._modules[attribute]
        assert inner is not None
        model = inner
    return model, around


def changeable(model: nn.Module) -> nn.Module:
    """The module inside all wrappers, if its parameters may be replaced there; else `ValueError`."""
    inner, around = unwrap(model)
    if "DistributedDataParallel" in around:
        raise ValueError(
            "model: expected one that is not yet in DistributedDataParallel, which would go on with the "
            "parameters that it was made for; change the module inside (model.module) and wrap it again"
        )
    return inner


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Nothing is compiled, and nothing that was runs, in between."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled yet
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def plain_names(model: nn.Module) -> Callable[[str], str]:
    """A function from the name of a tensor or module in `model` to its name as if nothing was wrapped."""
    steps = {
        f"{path}.{attribute}" if path else attribute
        for path, module in model.named_modules(remove_duplicate=False)
        if (attribute := inside(module)) is not None
    }

    def plain(name: str) -> str:
        parts = name.split(".")
        return ".".join(part for k, part in enumerate(parts, 1) if ".".join(parts[:k]) not in steps)

    return plain if steps else str


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules by their plain names; the one inside in place of its wrapper."""
    return _plain(model, model.named_modules())


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by their plain names; a tied one under its first name only."""
    return _plain(model, model.named_parameters())


def _plain(model: nn.Module, items: Iterable[tuple[str, T]]) -> dict[str, T]:
    plain = plain_names(model)
    return {plain(name): item for name, item in items}


def plain_state(model: nn.Module, keep_vars: bool = False) -> dict[str, Any]:
    """The `state_dict()` of the module inside all wrappers, by plain names; with `keep_vars` its own
    tensors."""
    inner = unwrap(model)[0]
    plain = plain_names(inner)
    return {plain(name): value for name, value in inner.state_dict(keep_vars=keep_vars).items()}


def load_plain_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load what :func:`plain_state` returned; errors as `load_state_dict`."""
    inner = unwrap(model)[0]
    plain = plain_names(inner)
    raw = {plain(name): name for name in inner.state_dict()}
    inner.load_state_dict({raw.get(name, name): value for name, value in state.items()})
