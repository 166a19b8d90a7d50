"""Run operations only for the shapes of their results, to save arithmetic and memory."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._pytree import tree_map

from .preserving import Preserved, written_by
from .shapes import result_of
from .state import Call, storage_of

_FILLED = {"zeros": 0, "ones": 1, "full": None, "empty": None}
"""Names of operations that make a constant tensor, also with the prefix `new_` or the suffix `_like`."""


class NeedsValuesError(Exception):
    """Raised when a model reads values, so that shapes alone do not describe it."""


class WithoutValues:
    """Computes operations of a model whose weights and inputs are on the device "meta".

    What depends on neither, such as a grid or a mask, is computed on `device`, because code may keep such
    tensors for later passes. A tensor on `device` loses its values when a tensor without values is written to
    it.
    """

    def __init__(self, device: torch.device, preserved: Preserved) -> None:
        self.device = device
        self._preserved = preserved
        self._hollow: dict[int, StorageWeakRef] = {}

    def has_values(self, x: Tensor) -> bool:
        return not x.is_meta and storage_of(x) not in self._hollow

    def __call__(self, call: Call, new: Container[int]) -> Any:
        """Return the result of `call`; `new` holds the storages that operations of this run made."""
        args, kwargs = call.args, call.kwargs
        tensors = call.tensors()
        without = bool(tensors) and all(x.is_meta for x in tensors)
        if without and (known := result_of(call)) is not None:
            return known
        if call.name == "resize" or all(self.has_values(x) for x in tensors):  # which reads none
            self._preserved.before(call, new)
            if _is_meta(kwargs.get("device")):
                kwargs = {**kwargs, "device": self.device}
            return call.func(*args, **kwargs)
        shapes: dict[int, Tensor] = {}  # {tensor with values: its stand-in without}
        real: dict[int, Tensor] = {}

        def shape(x: Any) -> Any:
            if not isinstance(x, Tensor) or x.is_meta:
                return x
            if id(x) not in shapes:
                shapes[id(x)] = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta")
                real[id(shapes[id(x)])] = x
            return shapes[id(x)]

        if not without:
            args, kwargs = tree_map(shape, (args, kwargs))
        out = call.func(*args, **kwargs)
        kind = call.name.removeprefix("new_").removesuffix("_like")
        if kind in _FILLED and out.is_meta:
            return self._constant(call, out, kind)
        for x in written_by(call):
            if not x.is_meta and (where := storage_of(x)) is not None:
                self._hollow[where] = StorageWeakRef(x.untyped_storage())  # type: ignore[no-untyped-call]
        return tree_map(lambda x: real.get(id(x), x), out) if real else out

    def _constant(self, call: Call, shape: Tensor, kind: str) -> Tensor:
        """Return a constant tensor shaped like one without values."""
        out = torch.empty_strided(shape.shape, shape.stride(), dtype=shape.dtype, device=self.device)
        value = call["fill_value"] if kind == "full" else _FILLED[kind]
        return out if value is None else out.fill_(value)


def _is_meta(device: Any) -> bool:
    return device is not None and torch.device(device).type == "meta"


def on_real_device(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], device: torch.device) -> Any:
    """Call `torch.tensor` and the like, which make a tensor of numbers, on `device`, not on "meta"."""
    if func is Tensor.new_tensor and args[0].is_meta:
        x, numbers = args[:2]
        return torch.tensor(numbers, **{"dtype": x.dtype, **kwargs, "device": device})
    if _is_meta(kwargs.get("device")):
        kwargs = {**kwargs, "device": device}
    return func(*args, **kwargs)
