"""Find everything that an object holds, such as the tensors in inputs, outputs and attributes."""

from __future__ import annotations

import functools
import gc
import operator
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import (
    AsyncGeneratorType,
    CodeType,
    CoroutineType,
    FrameType,
    FunctionType,
    GeneratorType,
    ModuleType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ATOMS = frozenset(
    (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), torch.dtype, torch.device, torch.Size)
)
"""Types that hold no other objects."""

_NOT_ITS_OWN = (type, ModuleType, CodeType, nn.Module)
"""What an object refers to but does not own: classes, and the network itself."""

_SUSPENDED = {GeneratorType: "gi_frame", CoroutineType: "cr_frame", AsyncGeneratorType: "ag_frame"}


def held_by(*roots: Any, enter: Callable[[Any], bool] = lambda one: True) -> Iterator[Any]:
    """Yield the `roots` and all that they hold, each once and nearest first.

    Containers, attributes, slots, closures, suspended generators and weak references are followed to
    any depth.

    Classes, Python modules, neural networks and what `enter` rejects are left out.
    """
    seen: set[int] = set()
    alive: list[Any] = []  # an id is that of one object only as long as it lives
    queue = deque(roots)
    while queue:
        one = queue.popleft()
        if type(one) in ATOMS or id(one) in seen or isinstance(one, _NOT_ITS_OWN) or not enter(one):
            continue
        seen.add(id(one))
        alive.append(one)
        yield one
        queue.extend(_inside(one))


def tensors_in(*roots: Any, enter: Callable[[Any], bool] = lambda one: True) -> list[Tensor]:
    """Return all tensors that `roots` hold."""
    return [one for one in held_by(*roots, enter=enter) if isinstance(one, Tensor)]


HOLDERS = frozenset((list, dict, OrderedDict, tuple, functools.partial))
"""Types that hold other objects, in which :func:`exchanged` looks for tensors."""


def exchanged(one: Any, new: Mapping[Tensor, Tensor]) -> Any:
    """Return `one` with the tensors in it replaced by `new` {old: new}, at any depth of plain containers.

    Lists and dictionaries are changed in place, and a tuple or a `functools.partial` is made anew.
    """
    seen: set[int] = set()

    def exchange(one: Any) -> Any:
        if isinstance(one, Tensor):
            return new.get(one, one)
        kind = type(one)
        if kind not in HOLDERS or id(one) in seen:
            return one
        seen.add(id(one))
        if kind is tuple:
            parts = tuple([exchange(part) for part in one])
            return one if all(map(operator.is_, parts, one)) else parts
        if kind is functools.partial:
            args, named = exchange(one.args), {name: exchange(value) for name, value in one.keywords.items()}
            same = args is one.args and all(named[name] is value for name, value in one.keywords.items())
            return one if same else functools.partial(one.func, *args, **named)
        for key, value in list(enumerate(one) if kind is list else one.items()):
            if (other := exchange(value)) is not value:
                one[key] = other
        return one

    return exchange(one)


def modules_of(model: nn.Module) -> list[nn.Module]:
    """Return what `model.modules()` yields, in less time."""
    found = []
    seen: set[int] = set()
    stack = [model]
    while stack:
        module = stack.pop()
        if id(module) not in seen:
            seen.add(id(module))
            found.append(module)
            if inside := module._modules:
                stack += [one for one in reversed(inside.values()) if one is not None]
    return found


def tensors_of(model: nn.Module) -> list[Tensor]:
    """Return what `model.parameters()` and `model.buffers()` yield, in less time."""
    kind = type(model)
    if kind.parameters is not nn.Module.parameters or kind.named_parameters is not nn.Module.named_parameters:
        return [*model.parameters(), *model.buffers()]
    modules = modules_of(model)
    stores = [module._parameters for module in modules] + [module._buffers for module in modules]
    held = {id(x): x for store in stores if store for x in store.values() if x is not None}
    return list(held.values())


def _inside(one: Any) -> Iterable[Any]:
    """Return what `one` holds itself."""
    kind = type(one)
    if isinstance(one, Tensor):
        return list(one.__dict__.values())  # a subclass may wrap others
    if isinstance(one, np.ndarray):
        return [one.base, *(one.flat if one.dtype == object else ())]
    if kind is FunctionType:
        return [one.__closure__, one.__defaults__, one.__kwdefaults__, one.__dict__]
    if kind is FrameType:
        return list(one.f_locals.values())
    if kind in _SUSPENDED:
        return [getattr(one, _SUSPENDED[kind])]
    if isinstance(one, weakref.ReferenceType):
        return [one()]
    return gc.get_referents(one)
