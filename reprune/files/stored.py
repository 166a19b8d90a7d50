"""Read the tensors of a training's file one after the other, into the tensors of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..modules.slicing import format_of, named_tensors
from ..modules.wrappers import load_plain_state, plain_state, unwrap
from .codec import mapped
from .tensor_file import TensorFile


class Stored:
    """Stand-ins without values for the tensors of a file, and their values."""

    def __init__(self, file: TensorFile) -> None:
        """Hold the tensors; raise `ValueError` unless `file` numbers them from 0."""
        self._file = file
        dtypes, shapes = file.dtypes, file.shapes
        names = [str(k) for k in range(len(shapes))]
        if shapes.keys() != set(names):
            raise ValueError("its tensors are not numbered")
        self.tensors = [torch.empty(shapes[name], dtype=dtypes[name], device="meta") for name in names]
        self._names = {id(tensor): name for tensor, name in zip(self.tensors, names, strict=True)}

    def new(self, value: Any) -> Any:
        """Return `value` with tensors for the stand-ins in it."""
        return mapped(value, lambda tensor: self._file.new(self._names[id(tensor)]))

    def like(self, values: Mapping[str, Tensor], live: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the same for `values` by name, in the memory format of the tensor in `live`, if any."""
        found = {}
        for name, value in values.items():
            layout = format_of(live[name]) if name in live else torch.contiguous_format
            out = torch.empty(value.shape, dtype=value.dtype, memory_format=layout)
            found[name] = self._file.read(self._names[id(value)], out)
        return found

    def load_model(self, model: nn.Module, saved: Mapping[str, Any]) -> None:
        """Load a state by plain names into the module inside all wrappers of `model`."""
        inner = unwrap(model)[0]
        load_plain_state(inner, self._filled(inner, plain_state(inner, keep_vars=True), saved))

    def load_module(self, module: nn.Module, saved: Any) -> None:
        """Load what `module.state_dict()` returned."""
        module.load_state_dict(self._filled(module, module.state_dict(keep_vars=True), saved))

    def _filled(self, module: nn.Module, own: Mapping[str, Any], saved: Any) -> Any:
        """Return `saved` with `module`'s own tensors, already filled, where loading would just copy."""
        if not isinstance(saved, dict) or not all(map(_loads_plainly, module.modules())):
            return self.new(saved)
        places = {id(tensor) for tensor in named_tensors(module).values()}
        found = {}
        for name, value in saved.items():
            mine = own.get(name)
            fits = isinstance(value, Tensor) and id(mine) in places and _fits(mine, value)
            if fits and mine is not None:
                found[name] = self._file.read(self._names[id(value)], mine)
            else:
                found[name] = self.new(value)
        return found


def _fits(mine: Any, value: Tensor) -> bool:
    plain = type(mine).__torch_dispatch__ is Tensor.__torch_dispatch__
    return plain and mine.shape == value.shape and mine.dtype == value.dtype


def _loads_plainly(module: nn.Module) -> bool:
    """Return whether `load_state_dict()` only copies what it is given."""
    kind = type(module)
    return (
        not module._load_state_dict_pre_hooks
        and kind.load_state_dict is nn.Module.load_state_dict
        and kind._load_from_state_dict.__module__.startswith("torch.")
    )
