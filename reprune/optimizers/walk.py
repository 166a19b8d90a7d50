"""Walk over what an object refers to, in search of tensors and optimizers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DEPTH = 8
"""Maximum number of steps from the start to a reference."""
_ENDS = (str, bytes, int, float, complex, type, ModuleType, nn.Module, np.ndarray, torch.Generator)


@dataclass(frozen=True)
class Found:
    """A tensor or an optimizer, and how to get there."""

    path: str
    value: Any
    in_state: bool
    """Whether it is part of an optimizer's state."""


def is_optimizer(value: Any) -> bool:
    """Return whether `value` has parameter groups as `torch.optim.Optimizer` has them."""
    if isinstance(value, (type, nn.Module)):
        return False
    groups = getattr(value, "param_groups", None)
    return isinstance(groups, (list, tuple)) and all(isinstance(g, Mapping) and "params" in g for g in groups)


def walk(start: Any, path: str) -> Iterator[Found]:
    """Yield tensors, by every path, and optimizers that `start` refers to, itself included, nearest first.

    It follows attributes, keys, values and items, but not modules, functions and the inside of tensors. The
    parameters in an optimizer's groups and the keys of its state are left out, since they belong there.
    """
    seen: dict[int, Any] = {}  # holds the objects, so that no id is used twice
    queue = deque([(Found(path, start, False), 0)])
    while queue:
        found, depth = queue.popleft()
        value = found.value
        if isinstance(value, Tensor):
            yield found
            continue
        if id(value) in seen or value is None:
            continue
        seen[id(value)] = value
        optimizer = is_optimizer(value)
        if optimizer:
            yield found
        if depth == DEPTH or (not optimizer and _ends(value)):
            continue
        if optimizer:
            for group in value.param_groups:  # changed in place: who shares the list, sees the change
                seen[id(group["params"])] = group["params"]
        children = _of_optimizer(value) if optimizer else _of_object(value)
        for step, child, state in children:
            queue.append((Found(found.path + step, child, found.in_state or state), depth + 1))


def _ends(value: Any) -> bool:
    return isinstance(value, _ENDS) or callable(value)


Children = Iterator[tuple[str, Any, bool]]


def _of_optimizer(optimizer: Any) -> Children:
    for k, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key != "params":
                yield f".param_groups[{k}][{key!r}]", value, False
    state = getattr(optimizer, "state", None)
    if isinstance(state, Mapping):
        for value in state.values():
            yield ".state[...]", value, True
    for name, value in getattr(optimizer, "__dict__", {}).items():
        if value is not state and value is not optimizer.param_groups:
            yield f".{name}", value, False


def _of_object(value: Any) -> Children:
    if isinstance(value, Mapping):
        for key, item in value.items():
            name = repr(key) if isinstance(key, (str, int, float)) else "..."
            yield f"[{name}]", item, False
            yield " (a key)", key, False
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        for k, item in enumerate(value):
            yield f"[{k}]", item, False
    else:
        for name, item in getattr(value, "__dict__", {}).items():
            yield f".{name}", item, False
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                yield f".{name}", getattr(value, name, None), False
