"""Copy a model: modules and their attributes are new, tensors are shared or replaced."""

from __future__ import annotations

import copy
import copyreg
import functools
import weakref
from collections import ChainMap, OrderedDict, defaultdict, deque
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from .held import ATOMS, modules_of
from .sharded import plain_attributes, plain_class

_CONTAINERS = frozenset((OrderedDict, dict, list, set))
_AS_THEY_ARE = (type, FunctionType, BuiltinFunctionType, ModuleType)


def shared_copy(model: nn.Module, new: Mapping[Tensor, Tensor]) -> nn.Module:
    """Copy `model` with its tensors replaced by `new` {old: new}; all others are shared.

    The copy of a sharded module is a plain one of the class that it was.
    """
    return _Copies({id(old): tensor for old, tensor in new.items()}, share=True).copied_model(model)


@torch.inference_mode(False)
def whole_copy(model: nn.Module) -> nn.Module:
    """Copy `model` with tensors of its own.

    It equals that of :func:`copy.deepcopy`, which fails if something on a module cannot be copied. Here such
    objects (a lock, a file, a stream) are shared, and a tensor with an autograd history, such as a loss, is
    copied without it.
    """
    return _Copies({}, share=False).copied_model(model)


def fresh(value: Any) -> Any:
    """Copy `value`, such as the arguments of a model, but share its tensors."""
    return _Copies({}, share=True).copied(value)


class _Copies:
    """What was copied so far: like :func:`copy.deepcopy`, but what cannot be copied is shared."""

    def __init__(self, memo: dict[int, Any], share: bool) -> None:
        self._memo: dict[Any, Any] = memo
        self._share = share
        self._alive: list[Any] = []
        """The objects whose ids the memo holds."""

    def copied_model(self, model: nn.Module) -> nn.Module:
        """Copy `model` so that its modules refer to each other as before, weak references too."""
        modules = [module for module in modules_of(model) if not self._as_it_says(module)]
        for module in modules:
            kind = plain_class(type(module))
            self._put(module, kind.__new__(kind))
        memo, alive = self._memo, self._alive
        for module in modules:
            attributes = plain_attributes(_state_of(module))
            state = dict(attributes)
            for name, value in attributes.items():
                kind = type(value)
                if kind in ATOMS:
                    continue
                new = memo.get(id(value))
                if new is None and kind in _CONTAINERS and not value:
                    new = memo[id(value)] = kind()  # most of a module: hooks that it does not have
                    alive.append(value)
                state[name] = self._or_shared(value) if new is None else new
            memo[id(module)].__setstate__(state)
        copied: nn.Module = self._memo[id(model)]
        return copied

    def copied(self, one: Any) -> Any:
        """Copy `one`."""
        kind = type(one)
        if kind in ATOMS:
            return one
        if id(one) in self._memo:
            return self._memo[id(one)]
        if isinstance(one, Tensor):
            return self._put(one, one if self._share else self._values(one))
        if kind is dict or kind is OrderedDict or kind is defaultdict:
            new = self._put(one, defaultdict(one.default_factory) if kind is defaultdict else kind())
            for key, value in one.items():
                new[key if type(key) in ATOMS else self.copied(key)] = (
                    value if type(value) in ATOMS else self.copied(value)
                )
            return new
        if kind is list or kind is deque:
            new = self._put(one, [] if kind is list else deque(maxlen=one.maxlen))
            new.extend(self.copied(value) for value in one)
            return new
        if kind is tuple and ATOMS.issuperset(map(type, one)):
            return one
        if kind is tuple or kind is set or kind is frozenset:
            return self._put(one, kind(self.copied(value) for value in one))
        if isinstance(one, _AS_THEY_ARE):
            return one
        if kind is MethodType:
            return MethodType(one.__func__, self.copied(one.__self__))
        if kind is weakref.ref:
            target = self._memo.get(id(one()), one())
            return one if target is one() else weakref.ref(target)
        return self._memo[id(one)] if self._as_it_says(one) else self._rebuilt(one)

    def _put(self, one: Any, new: Any) -> Any:
        self._alive.append(one)
        self._memo[id(one)] = new
        return new

    def _or_shared(self, value: Any) -> Any:
        try:
            return self.copied(value)
        except RecursionError:  # nested deeper than Python can follow
            return value

    def _values(self, tensor: Tensor) -> Tensor:
        try:
            return copy.deepcopy(tensor, self._memo)
        except RuntimeError:  # it has a history
            return tensor.detach().clone()

    def _as_it_says(self, one: Any) -> bool:
        """Copy `one` by its own `__deepcopy__`; return False if it has none or that fails."""
        if id(one) in self._memo:
            return True
        own = getattr(type(one), "__deepcopy__", None)
        if own is None:
            return False
        scripted = isinstance(one, torch.jit.ScriptModule)
        if scripted and self._share:  # its tensors cannot be replaced
            return False
        trial: ChainMap[Any, Any] = ChainMap({}, self._memo)
        try:
            new = _copy_of_scripted(one) if scripted else own(one, trial)
        except Exception:
            return False
        self._alive += trial.maps[0].pop(id(trial), [])
        self._memo.update(trial.maps[0])
        self._put(one, new)
        return True

    def _rebuilt(self, one: Any) -> Any:
        """Rebuild `one` from copies of its parts, as by pickle; return `one` itself where that fails."""
        try:
            reduce = copyreg.dispatch_table.get(type(one))
            parts = one.__reduce_ex__(4) if reduce is None else reduce(one)
            if isinstance(parts, str):
                return one
            make, args, state, items, pairs = (*parts, None, None, None)[:5]
            new = self._put(one, make(*(self.copied(arg) for arg in args)))
            if items is not None:
                new.extend(self.copied(item) for item in items)
            if pairs is not None:
                new.update((self.copied(key), self.copied(value)) for key, value in pairs)
            if state is not None:
                _set_state(new, self.copied(state))
            return new
        except Exception:  # a lock, a file, a stream: it is one of a kind
            return self._put(one, one)


def _copy_of_scripted(module: Any) -> Any:
    """Copy a scripted module, which takes no memo but a dictionary, with parameters that can be trained."""
    with torch.no_grad():  # else they have a history
        new = copy.deepcopy(module)
    for mine, theirs in zip(new.parameters(), module.parameters(), strict=True):
        mine.requires_grad_(theirs.requires_grad)
    return new


_PLAIN = ("__reduce_ex__", "__reduce__", "__getstate__")


@functools.lru_cache(maxsize=1024)
def _is_its_attributes(kind: Any) -> bool:
    """Return whether modules of this class are copied by their attributes alone."""
    own = [getattr(kind, name, None) is not getattr(nn.Module, name, None) for name in _PLAIN]
    slots = [base for base in kind.__mro__ if base not in nn.Module.__mro__ and "__slots__" in vars(base)]
    return not any(own) and not slots and kind not in copyreg.dispatch_table


def _state_of(module: nn.Module) -> dict[str, Any]:
    """Return the attributes of `module`, or those that it says should be copied."""
    kind: Any = type(module)
    compiled = module.__dict__.get("_compiled_call_impl") is not None  # would run the model that was copied
    if _is_its_attributes(kind) and not compiled:
        return module.__dict__
    try:
        state = module.__reduce_ex__(4)[2]
    except Exception:  # it cannot be pickled, a parametrised module for one
        return module.__dict__
    return state if isinstance(state, dict) else module.__dict__


def _set_state(new: Any, state: Any) -> None:
    if hasattr(new, "__setstate__"):
        new.__setstate__(state)
        return
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    if attributes:
        new.__dict__.update(attributes)
    for name, value in (slots or {}).items():
        setattr(new, name, value)
