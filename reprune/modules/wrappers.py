"""Look through wrappers around a network; the inside is planned, sliced and saved by its own names."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .sharded import refuse_sharded

WRAPPERS = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "ModelEmaV2": "module",  # timm
    "ModelEmaV3": "module",
}
"""{class: attribute that holds the wrapped module}; subclasses and namesakes of other packages count too."""

AVERAGES = {"AveragedModel", "ModelEmaV2", "ModelEmaV3"}
"""Wrappers whose module is a copy with averaged values, not the module that was given."""


def inside(module: nn.Module) -> str | None:
    """Return the attribute that holds the wrapped module, or None if `module` is no wrapper."""
    kind: Any = type(module)
    for attribute in _wraps(kind):
        if module._modules.get(attribute) is not None:
            return attribute
    return None


@functools.lru_cache(maxsize=1024)
def _wraps(kind: Any) -> tuple[str, ...]:
    """Return the attributes in which modules of this class may hold a wrapped one."""
    return tuple(WRAPPERS[base.__name__] for base in kind.__mro__ if base.__name__ in WRAPPERS)


def unwrap(model: nn.Module) -> tuple[nn.Module, set[str]]:
    """Return the user's own module inside all wrappers, and which of `WRAPPERS` were around it."""
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
    """Return the module inside all wrappers; raise `ValueError` if its parameters cannot be replaced."""
    inner, around = unwrap(model)
    if "DistributedDataParallel" in around:
        raise ValueError(
            "model: expected one that is not yet in DistributedDataParallel, which would keep the "
            "parameters that it was made for; change the module inside (model.module) and wrap it again"
        )
    refuse_sharded(
        inner,
        "it would keep the parameters that it was made for. reprune.fsdp.apply makes a smaller model of it, "
        "and reprune.load takes a model before it is sharded",
    )
    return inner


@contextlib.contextmanager
def eagerly() -> Iterator[None]:
    """Compile nothing, and run nothing compiled, inside the block."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled yet
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def plain_names(model: nn.Module) -> Callable[[str], str]:
    """Return a function from the name of a tensor or module to its name without wrappers."""
    steps = {
        f"{path}.{attribute}" if path else attribute
        for path, module in paths(model, again=True)
        if (attribute := inside(module)) is not None
    }

    def plain(name: str) -> str:
        parts = name.split(".")
        return ".".join(part for k, part in enumerate(parts, 1) if ".".join(parts[:k]) not in steps)

    return plain if steps else str


def paths(model: nn.Module, again: bool = False) -> list[tuple[str, nn.Module]]:
    """Return what `model.named_modules()` yields, and one in several places `again`, in less time."""
    found = []
    seen: set[int] = set()
    stack = [("", model)]
    while stack:
        here = stack.pop()
        path, module = here
        if not again:
            if id(module) in seen:
                continue
            seen.add(id(module))
        found.append(here)
        if module._modules:
            begin = f"{path}." if path else ""
            stack += [
                (begin + name, one) for name, one in reversed(module._modules.items()) if one is not None
            ]
    return found


def have_wrappers(found: Sequence[tuple[str, nn.Module]]) -> bool:
    """Return whether one of the modules that :func:`paths` `found` is a wrapper."""
    kinds: set[Any] = {type(module) for _, module in found}
    return any(map(_wraps, kinds)) and any(inside(module) for _, module in found)


def first_names(stores: Iterable[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, Any]]:
    """Return each tensor in `stores`, (path of a module, its tensors), under its first name."""
    seen: set[int] = set()
    found = []
    for path, store in stores:
        for name, tensor in store.items():
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                found.append((f"{path}.{name}" if path else name, tensor))
    return found


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return modules by plain name, with the one inside in place of its wrapper."""
    found = paths(model)
    if not have_wrappers(found):
        return dict(found)
    plain = plain_names(model)
    return {plain(path): module for path, module in found}


def named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return parameters by plain name; a tied one appears under its first name only."""
    modules = paths(model)
    if type(model).named_parameters is nn.Module.named_parameters:
        found = first_names((path, module._parameters) for path, module in modules)
    else:
        found = list(model.named_parameters())
    plain = plain_names(model) if have_wrappers(modules) else str
    return {plain(name): item for name, item in found}


def plain_state(model: nn.Module, keep_vars: bool = False) -> dict[str, Any]:
    """Return the `state_dict()` inside all wrappers by plain name; `keep_vars` keeps its own tensors."""
    inner = unwrap(model)[0]
    plain = plain_names(inner)
    return {plain(name): value for name, value in inner.state_dict(keep_vars=keep_vars).items()}


def load_plain_state(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load what :func:`plain_state` returned; raises as `load_state_dict`."""
    inner = unwrap(model)[0]
    plain = plain_names(inner)
    raw = {plain(name): name for name in inner.state_dict()}
    inner.load_state_dict({raw.get(name, name): value for name, value in state.items()})
