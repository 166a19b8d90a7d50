"""Save a pruned model's tensors with the plan that fits the full model to them, without pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from ..aliases import Ints
from ..arguments import shown
from ..distributed import together
from ..modules.sharded import is_sharded, settle
from ..modules.slicing import (
    format_of,
    named_tensors,
    replace_tensors,
    replacement,
    slice_model,
    sliced_copy,
    sliced_shape,
)
from ..modules.wrappers import changeable, unwrap
from ..plan import PruningPlan, plan_of, remember_plan
from . import tensor_file
from .contents import contents
from .tensor_file import TensorFile

KEY = "reprune"
"""Key of the head in the metadata."""
FORMAT = 1
"""Version of the file format."""


def save(model: nn.Module, path: str | os.PathLike[str], plan: PruningPlan | None = None) -> None:
    """Write `model` and the plan that pruned it to a safetensors file.

    The file is complete or not there (:func:`reprune.files.atomic.atomic_write`), and its head carries a
    checksum of everything in it. The same model gives the same bytes.

    Args:
        model: A pruned network, or one that was never pruned. Of a model in torch.compile,
            DistributedDataParallel or AveragedModel the network inside is written, and so for its parts; of
            a part of a pruned network, that part. One that `fully_shard` has sharded is given by all
            processes, and the first one writes the file, which is that of the same model in one piece.
        path: Name of the file.
        plan: A plan for `model` that was not applied. The file is then that of the network which
            :func:`apply` would make, to the last byte; it is made a tensor at a time, so that it need not fit
            in memory, and `model` stays as it is. Default: `model` itself is written.

    Raises:
        ValueError: The model has a state that a file cannot hold or :func:`load` could not restore, or `plan`
            was made for another model.
        TypeError: `plan` is none.
        OSError: The file cannot be written.

    Examples:
        >>> import tempfile, torch, reprune
        >>> from torch import nn
        >>> build = lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3))
        >>> small, plan = reprune.prune(build(), torch.randn(2, 3, 8, 8), keep={"0": 4})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     reprune.save(small, f"{folder}/small.safetensors")
        ...     reprune.load(f"{folder}/small.safetensors", build())[0]
        Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))
    """
    if is_sharded(model):
        with together("save"):
            settle(unwrap(model)[0])
            _save(model, path, plan)
    else:
        _save(model, path, plan)


def _save(model: nn.Module, path: str | os.PathLike[str], plan: PruningPlan | None) -> None:
    inner, own = unwrap(model)[0], contents(model)
    slices: dict[str, Mapping[int, Ints]] = {}
    if plan is not None:
        if not isinstance(plan, PruningPlan):
            raise TypeError(f"plan: expected a PruningPlan, such as make_plan returns; got {shown(plan)}")
        plan.check(inner)
        small = sliced_copy(inner, plan.slices, plan.widths, meta=True)  # its shapes, to tell its plan
        remember_plan(small, plan, plan_of(inner))
        kept = _by_tensor(inner, plan)
        slices = {name: kept[tensor] for name, tensor in own.items() if tensor in kept}
        inner = small
    made_by = plan_of(inner)
    head = {"format": FORMAT, "plan": None if made_by is None else json.loads(made_by.to_json())}
    tensor_file.write(path, KEY, head, own, slices)


def load(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """Turn `model` into the network in the file at `path`, in place.

    Args:
        path: A file that :func:`save` wrote.
        model: The network as it is built, at full size. In torch.compile, DataParallel or AveragedModel it
            is changed inside. Built on the device "meta", where it takes no memory, it ends up on the CPU.

    Returns:
        `model`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, from a newer version, not reprune's or of another model, or a tensor
            on the device "meta" is not in it. Then the model is as it was.

    Examples:
        :func:`save` has one.
    """
    inner = changeable(model)
    with _opened(path) as file:
        plan = _plan_in(file, path)
        own = contents(inner, with_values=False)
        _same_names(own, file.shapes, path)
        tensors = named_tensors(inner)
        if plan is not None:
            with _naming(path):
                plan.check(inner)
        slices = {} if plan is None else _by_tensor(inner, plan)
        for name, old in own.items():
            size = sliced_shape(old.shape, slices.get(old, {}))
            if file.shapes[name] != size:
                raise ValueError(f"{path}: {name} has shape {file.shapes[name]}, this model needs {size}")
            if not _alike(file.dtypes[name], old.dtype):
                raise ValueError(f"{path}: {name} is {file.dtypes[name]}, this model needs {old.dtype}")
        saved = {*own.values()}
        for name, tensor in tensors.items():
            if tensor.is_meta and tensor not in saved:
                raise ValueError(
                    f"{path}: {name} of the model is on the device 'meta', and a file has no values for "
                    "buffers that are not persistent; build the model with this one on the CPU"
                )
        new = {old: replacement(old, _read(file, name, old), None) for name, old in own.items()}
        file.check()
    left = (
        {} if plan is None else {name: kept for name, kept in plan.slices.items() if tensors[name] not in new}
    )
    cut = slice_model(inner, left)  # what is not in the file: buffers that are not persistent
    if plan is None:
        replace_tensors(inner, cut | new)
    else:
        replace_tensors(inner, cut | new, plan.widths, plan.slices)
        remember_plan(inner, plan, None)
    return model


def read_plan(path: str | os.PathLike[str]) -> PruningPlan:
    """Return the plan in a file that :func:`save` wrote.

    Raises as :func:`load`; also `ValueError` if the model was not pruned.
    """
    with _opened(path) as file:
        plan = _plan_in(file, path)
    if plan is None:
        raise ValueError(f"{path}: the model in it was not pruned, so there is no plan")
    return plan


def _by_tensor(model: nn.Module, plan: PruningPlan) -> dict[Tensor, Mapping[int, Ints]]:
    """Return what `plan` keeps of each tensor of `model` that it slices."""
    tensors = named_tensors(model)
    return {tensors[name]: kept for name, kept in plan.slices.items()}


def _read(file: TensorFile, name: str, old: Tensor) -> Tensor:
    """Read the tensor `name` in the file's dtype, on the device and in the memory format of `old`.

    What has no values yet gets them on the CPU.
    """
    size, dtype = file.shapes[name], file.dtypes[name]
    device = "cpu" if old.is_meta else old.device
    return file.read(name, torch.empty(size, dtype=dtype, device=device, memory_format=format_of(old)))


def _opened(path: str | os.PathLike[str]) -> AbstractContextManager[TensorFile]:
    return tensor_file.opened(path, KEY, "reprune.save")


def _plan_in(file: TensorFile, path: str | os.PathLike[str]) -> PruningPlan | None:
    try:
        version, plan = file.head["format"], file.head["plan"]
    except (KeyError, TypeError):
        raise ValueError(f"{path}: the header is damaged") from None
    if version != FORMAT:
        raise ValueError(
            f"{path}: this version of reprune reads files of format {FORMAT}; got format {version!r}; "
            "use the version that wrote it, or a newer one"
        )
    with _naming(path):
        return None if plan is None else PruningPlan.from_json(json.dumps(plan))


@contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Add the name of the file to errors raised inside the block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _alike(one: torch.dtype, other: torch.dtype) -> bool:
    """Return whether both tensors are real, both complex, or both neither."""
    return one.is_floating_point == other.is_floating_point and one.is_complex == other.is_complex


def _same_names(own: Iterable[str], stored: Iterable[str], path: str | os.PathLike[str]) -> None:
    missing, surplus = sorted({*own} - {*stored}), sorted({*stored} - {*own})
    if missing or surplus:
        parts = [
            f"{what} {', '.join(names[:3])}"
            for what, names in (("lacks", missing), ("has", surplus))
            if names
        ]
        raise ValueError(f"{path}: not a file of this model: it {' and '.join(parts)}")
