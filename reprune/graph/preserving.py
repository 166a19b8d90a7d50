"""Run a network and restore everything that a forward pass changes."""

from __future__ import annotations

import contextlib
import functools
import gc
import random
import sys
from collections import deque
from collections.abc import Callable, Container, Iterator
from itertools import islice
from types import CellType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module
from torch.utils._python_dispatch import TorchDispatchMode

from ..modules.held import ATOMS, held_by, modules_of, tensors_in, tensors_of
from .state import Call, storage_of

MOST_HELD = 10_000
"""Maximum number of objects held by hooks that are restored."""


@contextlib.contextmanager
def preserving(model: nn.Module, *inputs: Any) -> Iterator[Preserved]:
    """Restore the model, its objects and the generators after the block, also after errors and interrupts.

    - the tensors of `model` and of its `inputs`: values, memory, gradients, marks and version counters, as
      far as operations run under a :class:`Guard` or a trace;
    - all generators of random numbers: torch's, Python's and numpy's;
    - what hooks hold, such as a list in which they record activations;
    - autograd's and the backends' settings. Gradients are off in between, and so is inference mode, whose
      tensors could not be trained.

    Attributes of modules are not restored: run a copy (:mod:`reprune.modules.copying`).
    """
    with torch.inference_mode(False), torch.no_grad():
        tensors = [*tensors_of(model), *tensors_in(*inputs)]
        preserved = Preserved(tensors, functions_of(model))
        with contextlib.ExitStack() as counters:
            for kept in _counters_kept([x for x in tensors if not x.is_inference()]):
                counters.enter_context(kept)
            fast, cache = torch.backends.mha.get_fastpath_enabled(), torch.is_autocast_cache_enabled()
            try:
                torch.backends.mha.set_fastpath_enabled(False)
                torch.set_autocast_cache_enabled(False)  # what is cast for one pass is a constant to the next
                yield preserved
            finally:
                torch.backends.mha.set_fastpath_enabled(fast)
                torch.set_autocast_cache_enabled(cache)
                preserved.restore()


def _counters_kept(tensors: list[Tensor]) -> list[contextlib.AbstractContextManager[None]]:
    """Return contexts after which the version counters of `tensors` are what they are now."""
    keep: Any = torch.autograd.grad_mode._unsafe_preserve_version_counter
    try:
        return [keep(tuple(tensors))]
    except AttributeError:  # torch 2.6 takes one at a time
        return [keep(x) for x in tensors]


class Preserved:
    """The values from before, of everything that has been written to."""

    def __init__(self, tensors: list[Tensor], functions: list[Any]) -> None:
        self._tensors = [(x, x.detach(), x.requires_grad, x.grad, dict(x.__dict__)) for x in tensors]
        self._generators = _generators({x.device for x in tensors})
        self._states = [(generator, generator.get_state()) for generator in self._generators]
        self._python = random.getstate()
        self._numpy = np.random.get_state(legacy=False)  # noqa: NPY002  (the one that forward passes may use)
        same_kind = _first_of_numpy()["bit_generator"] == self._numpy["bit_generator"]
        self._first = _first_of_numpy() if same_kind else self._numpy
        objects = islice(held_by(*functions, enter=_may_change), MOST_HELD)
        self._objects = [restore_one for one in objects if (restore_one := _snapshot(one)) is not None]
        self._storages: dict[int, tuple[Any, Any]] = {}
        self._written: dict[int, tuple[Tensor, Tensor]] = {}
        self._drawn = 0

    @property
    def written(self) -> int:
        """How many tensors that existed before have been written to."""
        return len(self._storages)

    def begin_pass(self) -> None:
        """Reset the random numbers to those of every other pass."""
        self._drawn = 0
        random.seed(0)
        np.random.set_state(self._first)  # noqa: NPY002

    def before(self, call: Call, new: Container[int]) -> None:
        """Save what `call` will write to, but for the `new` storages, and seed it if it draws.

        Each draw is seeded by its index, so that it does not depend on the sizes of earlier draws, which
        differ in a sliced network.
        """
        if call.operation.draws:
            self._seed(call)
        for x in written_by(call):
            self.keep(x, new)

    def keep(self, x: Tensor, new: Container[int]) -> None:
        """Save the values of `x`, which may be written to, and its shape, which an empty tensor may lose."""
        where = None if x.is_meta else storage_of(x)
        if where is None or where in new:
            return
        if id(x) not in self._written:  # empty memory may grow, and be shown by others then
            self._written[id(x)] = x, x.detach() if x.untyped_storage().nbytes() else torch.empty_like(x)
        if where not in self._storages:
            self._storages[where] = (x.untyped_storage(), x.untyped_storage().clone())  # type: ignore[no-untyped-call]

    def _seed(self, call: Call) -> None:
        generators = self._generators
        if (own := call.kwargs.get("generator")) is not None:
            if not any(own is generator for generator, _ in self._states):
                self._states.append((own, own.get_state()))
            generators = [own]
        for generator in generators:
            generator.manual_seed(self._drawn)
        self._drawn += 1

    def restore(self) -> None:
        """Restore everything."""
        try:
            self._restore()
        except KeyboardInterrupt:
            self._restore()
            raise

    def _restore(self) -> None:
        for storage, values in self._storages.values():
            _fill(storage, values)
        for x, was, requires_grad, grad, marks in self._tensors:
            if not _same_memory(x, was):
                x.data = was
            if x.requires_grad != requires_grad:
                x.requires_grad_(requires_grad)
            if x.grad is not grad:
                x.grad = grad
            if marks or x.__dict__:
                _put_back_dict(x.__dict__, marks)
        for x, was in self._written.values():
            if not _same_memory(x, was):
                x.data = was
        for generator, state in self._states:
            generator.set_state(state)
        random.setstate(self._python)
        np.random.set_state(self._numpy)  # noqa: NPY002
        for restore_one in self._objects:
            restore_one()


@functools.cache
def _first_of_numpy() -> Any:
    """Return the state of numpy's generator with the seed 0."""
    return np.random.RandomState(0).get_state(legacy=False)


class Guard(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Saves what operations write to."""

    def __init__(self, preserved: Preserved) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._preserved = preserved

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._preserved.before(Call(func, args, kwargs or {}), set())
        return func(*args, **(kwargs or {}))


def written_by(call: Call) -> list[Tensor]:
    """Return the tensors that `call` writes to."""
    written = []
    for name in call.operation.written:
        if name in ("running_mean", "running_var") and not call["training"]:
            continue
        value = call[name]
        written += [
            x for x in (value if isinstance(value, (list, tuple)) else (value,)) if isinstance(x, Tensor)
        ]
    return written


def _generators(devices: set[torch.device]) -> list[torch.Generator]:
    """Return the generators of the CPU and of `devices`."""
    found = [torch.default_generator]
    for device in sorted(devices, key=str):
        if device.type == "mps":
            found.append(torch.mps._get_default_mps_generator())
        elif device.type not in ("cpu", "meta"):
            module = torch.get_device_module(device)
            found.append(module.default_generators[device.index or 0])
    return found


def _fill(storage: Any, values: Any) -> None:
    """Copy `values` to the beginning of `storage`, which may have grown; views may show what it has more."""
    if storage.nbytes() == values.nbytes():
        storage.copy_(values)
    elif values.nbytes():
        size = (values.nbytes(),)
        begin, whole = (torch.empty(0, dtype=torch.uint8, device=values.device) for _ in range(2))
        begin.set_(storage, 0, size, (1,)).copy_(whole.set_(values, 0, size, (1,)))


def _same_memory(x: Tensor, was: Tensor) -> bool:
    if x.is_cpu and x.layout is torch.strided and x.dtype is was.dtype:
        return x.is_set_to(was)
    return (
        storage_of(x) == storage_of(was)
        and x.shape == was.shape
        and x.dtype == was.dtype
        and (
            x.layout is not torch.strided
            or (x.stride(), x.storage_offset()) == (was.stride(), was.storage_offset())
        )
    )


def functions_of(model: nn.Module) -> list[Any]:
    """Return functions that a pass may call and that a copy shares, and the globals they name."""
    hooks = [every_module._global_forward_hooks, every_module._global_forward_pre_hooks]
    hung: list[Any] = []
    for module in modules_of(model):
        for name, value in module.__dict__.items():
            if type(value) in ATOMS:
                continue
            if isinstance(value, dict):
                if value and name.endswith("_hooks"):
                    hung += value.values()
            elif isinstance(value, (FunctionType, functools.partial)):
                hung.append(value)
    hung += [hook for table in hooks for hook in table.values()]
    functions = [one.func if isinstance(one, functools.partial) else one for one in hung]
    named = [
        one.__globals__[name]
        for one in functions
        if isinstance(one, FunctionType)
        for name in one.__code__.co_names
        if name in one.__globals__
    ]
    return [*hung, *(value for value in named if not isinstance(value, FunctionType))]


_LIBRARY = sys.stdlib_module_names - {"builtins", "collections", "functools", "types", "weakref"}


def _may_change(one: Any) -> bool:
    """Return whether `one` is the user's object or a container, and not a lock, a log or a file."""
    return type(one).__module__.partition(".")[0] not in _LIBRARY


def _snapshot(one: Any) -> Callable[[], None] | None:
    """Return a function that restores what `one` holds itself, or None if that cannot change."""
    if isinstance(one, dict):
        return functools.partial(_put_back_dict, one, dict(one))
    if isinstance(one, (list, deque, set)):
        return functools.partial(_put_back, one, list(one))
    if isinstance(one, CellType):
        return functools.partial(_put_back_cell, one, *gc.get_referents(one))
    attributes = getattr(one, "__dict__", None)
    if isinstance(attributes, dict) and not isinstance(one, Tensor):
        return functools.partial(_put_back_dict, attributes, dict(attributes))
    return None


def _put_back_dict(one: dict[Any, Any], was: dict[Any, Any]) -> None:
    same = len(one) == len(was) and all(
        k is l and v is w for (k, v), (l, w) in zip(one.items(), was.items(), strict=True)
    )
    if not same:
        one.clear()
        one.update(was)


def _put_back_cell(one: CellType, *contents: Any) -> None:
    if contents:
        one.cell_contents = contents[0]
    elif gc.get_referents(one):
        del one.cell_contents


def _put_back(one: Any, was: list[Any]) -> None:
    if len(one) != len(was) or any(a is not b for a, b in zip(one, was, strict=True)):
        one.clear()
        (one.update if isinstance(one, set) else one.extend)(was)
