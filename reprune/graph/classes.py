"""Tell whether what a network computes depends on the classes of its modules, which a trace changes.

Attentions and norms are traced in classes that can lose heads and channels. Code that asks for the class,
`type(self.norm) is nn.LayerNorm`, would take another way there, and in a smaller network too.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

import torch
from torch import nn

from ..modules.heads import for_any_heads
from ..modules.norms import for_any_width
from ..modules.own_width import WithOwnWidth
from ..modules.slicing import named_tensors, sliced_copy
from ..modules.wrappers import named_modules
from .preserving import functions_of, preserving
from .rules import has_rule, is_movement
from .state import Call
from .tracer import Tracer, run

_ASKING = frozenset(("type()", "__class__", "_get_name"))
_LIBRARIES = ("torch.", "torchvision.utils.", "reprune.")
"""Beginnings of the names of Python modules of which it is known that they do not ask for these classes."""


def depends_on_classes(model: nn.Module, example: Any, shapes: bool, device: torch.device | None) -> bool:
    """Return whether `model` computes something else with the classes of :func:`for_any_heads` and the like.

    `example`, `shapes` and `device` are those of its trace. It is run only if its code asks for classes.
    """
    if not _asks(model):
        return False
    own = sliced_copy(model, {}, {}, shapes)
    other = for_any_width(for_any_heads(sliced_copy(model, {}, {}, shapes)))
    modules, changed = named_modules(own), named_modules(other)
    names = [
        name
        for name, module in modules.items()
        if type(module) is not type(changed[name]) and not isinstance(changed[name], WithOwnWidth)
    ]
    if all(type(module) is type(changed[name]) for name, module in modules.items()):
        return False
    found = []
    for copy in (own, other):
        try:
            with preserving(model, example) as preserved:
                calls = _Calls(named_tensors(copy), {}, preserved, device=device)
                calls.leave_out([named_modules(copy)[name] for name in names])
                run(copy, example, calls)
        except TimeoutError:
            raise
        except Exception:
            return False  # the trace fails too, and says more
        found.append(calls.found)
    return bool(found[0] != found[1])


class _Calls(Tracer):
    """Records which operations a pass calls, on how much and with which numbers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.found: list[tuple[Any, ...]] = []
        self._inside = 0

    def leave_out(self, modules: list[nn.Module]) -> None:
        """Record nothing inside of these `modules`; what hooks of theirs do is outside."""

        def enter(*_: Any) -> None:
            self._inside += 1

        def leave(*_: Any) -> None:
            self._inside -= 1

        for module in modules:
            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave, prepend=True)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = Call(func, args, kwargs or {})
        if call.operation.has_parts and not has_rule(call):
            with self:
                return func.decompose(*args, **call.kwargs)
        self.reached = func
        if self.without_values is None:
            self.preserved.before(call, self.memory.made)
            call.out = func(*args, **call.kwargs)
        else:
            call.out = self.without_values(call, self.memory.made)
        self.memory.note(call, self.known)
        if not self._inside and not (is_movement(call) or call.name in ("clone", "contiguous")):
            self.found += _described(call)
        return call.out


def _described(call: Call) -> list[tuple[Any, ...]]:
    """Return what `call` does, however its arguments lie: a Linear layer may add its bias on its own."""
    size = tuple(x.numel() for x in call.outputs())
    if call.name == "addmm" and not call.scalars():
        return [("mm", size), ("add", size)]
    if call.name in ("mm", "add") and not call.scalars():
        return [(call.name, size)]
    constants = [x for x in call.tensors() if x.dim() == 0 and x.device.type == "cpu"]
    return [(call.name, size, repr(call.scalars()), repr([x.item() for x in constants]))]


def _asks(model: nn.Module) -> bool:
    """Return whether a function that a pass may call has a name by which code asks for classes."""
    methods: dict[str, list[FunctionType]] = {}
    for kind in {type(module) for module in model.modules()}:
        for base in kind.__mro__:
            if not _is_known(base.__module__):
                for name, value in vars(base).items():
                    methods.setdefault(name, []).extend(_functions(value))
    left = [one for value in functions_of(model) for one in _functions(value)]
    left += methods.get("forward", []) + methods.get("__call__", [])
    seen: set[FunctionType] = set()
    while left:
        function = left.pop()
        if function in seen or _is_known(function.__globals__.get("__name__")):
            continue
        seen.add(function)
        names = set(_names_in(function.__code__))
        if names & _ASKING:
            return True
        for name in names:
            left += methods.get(name, [])
            left += _functions(function.__globals__.get(name))
        for cell in function.__closure__ or ():
            left += _functions(getattr(cell, "cell_contents", None))
    return False


def _is_known(home: object) -> bool:
    return f"{home}.".startswith(_LIBRARIES)


def _functions(value: Any) -> list[FunctionType]:
    """Return the functions of Python that `value` is, or consists of."""
    parts = [
        value,
        *(getattr(value, name, None) for name in ("__func__", "func", "fget", "__wrapped__")),
    ]
    return [part for part in parts if isinstance(part, FunctionType)]


def _names_in(code: CodeType) -> Iterator[str]:
    """Yield the names of globals and attributes in `code` and in the functions inside.

    The function `type` is "type()", as many things have a type: `x.device.type`.
    """
    yield from code.co_names
    if "type" in code.co_names and any(
        one.argval == "type" and one.opname in ("LOAD_GLOBAL", "LOAD_NAME")
        for one in dis.get_instructions(code)
    ):
        yield "type()"
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _names_in(const)
