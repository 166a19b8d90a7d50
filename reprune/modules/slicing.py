"""Slice a model: keep some positions of some dimensions of its parameters and buffers.

This is the only module that changes shapes. Everything is sliced before anything is replaced, so an error
leaves the model as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..aliases import Ints
from .copying import shared_copy
from .heads import sync_heads
from .held import HOLDERS, exchanged, modules_of
from .meta import on_meta
from .norms import Norm, norms_of, sync_norms
from .sizes import set_widths, sync_groups, sync_layer_sizes
from .wrappers import first_names, have_wrappers, named_modules, paths, plain_names

Positions = Mapping[int, Ints]
"""{dimension: sorted positions} of one tensor; other dimensions are complete."""
Slices = Mapping[str, Positions]
"""{parameter or buffer: the kept positions}; everything else is not sliced."""


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by plain name; a tied one appears under its first name only."""
    kind, modules = type(model), paths(model)
    if kind.named_parameters is nn.Module.named_parameters and kind.named_buffers is nn.Module.named_buffers:
        found = first_names((path, module._parameters) for path, module in modules if module._parameters)
        found += first_names((path, module._buffers) for path, module in modules if module._buffers)
    else:
        found = [*model.named_parameters(), *model.named_buffers()]
    if not have_wrappers(modules):
        return dict(found)
    plain = plain_names(model)
    return {plain(name): tensor for name, tensor in found}


def slice_tensor(tensor: Tensor, kept: Positions) -> Tensor:
    """Return the kept positions of `tensor` as a new tensor in the same memory format."""
    out = tensor.detach()
    for dim, positions in kept.items():
        out = out.index_select(dim, torch.from_numpy(positions).to(out.device))
    return in_format_of(tensor, out)


def write(full: Tensor, where: Positions, part: Tensor) -> None:
    """Assign `full[where] = part`, on the device of `full`."""
    dims = [(dim, kept) for dim, kept in where.items() if kept.size < full.shape[dim]]
    if not dims:
        full.copy_(part)
        return
    (dim, kept), rest = dims[0], dict(dims[1:])
    index = torch.from_numpy(kept).to(full.device)
    if rest:
        rows = full.index_select(dim, index)
        write(rows, rest, part)
        part = rows
    full.index_copy_(dim, index, part.to(full.device))


def in_format_of(tensor: Tensor, out: Tensor) -> Tensor:
    """Return `out` in the memory format of `tensor`."""
    layout = format_of(tensor)
    return out if layout == torch.contiguous_format else out.contiguous(memory_format=layout)


def format_of(tensor: Tensor) -> torch.memory_format:
    """Return the memory format of `tensor`: channels last or contiguous."""
    for ndim, layout in ((4, torch.channels_last), (5, torch.channels_last_3d)):
        if tensor.dim() == ndim and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=layout):
            return layout
    return torch.contiguous_format


def sliced_shape(shape: Sequence[int], kept: Positions) -> tuple[int, ...]:
    """Return the shape of the kept positions of a tensor of `shape`."""
    return tuple([kept[dim].size if dim in kept else size for dim, size in enumerate(shape)])


@torch.inference_mode(False)
def slice_model(model: nn.Module, slices: Slices) -> dict[Tensor, Tensor]:
    """Return {tensor of the model: its slice} for every tensor in `slices`; the model is unchanged."""
    tensors = named_tensors(model)
    new: dict[Tensor, Tensor] = {}
    for name, kept in slices.items():
        old = tensors[name]
        new[old] = replacement(old, slice_tensor(old, kept), partial(slice_tensor, kept=kept))
    return new


def replacement(old: Tensor, value: Tensor, moved: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Return the parameter or buffer that takes the place of `old`, with another value.

    `moved` slices the gradient, and attributes of the parameter's shape that a training loop has set on it;
    without it the gradient is dropped.
    """
    if not isinstance(old, nn.Parameter):
        return value
    parameter = nn.Parameter(value, requires_grad=old.requires_grad)
    for name, mark in vars(old).items():
        along = moved is not None and isinstance(mark, Tensor) and mark.shape == old.shape
        setattr(parameter, name, moved(mark) if moved and along else mark)
    if moved and old.grad is not None:
        parameter.grad = moved(old.grad)
    return parameter


_STORES = frozenset(("_parameters", "_buffers", "_modules"))


def replace_tensors(
    model: nn.Module,
    new: Mapping[Tensor, Tensor],
    widths: Mapping[str, int] | None = None,
    slices: Slices | None = None,
) -> None:
    """Replace tensors of `model`, tied ones everywhere, and update the size attributes of its layers.

    `widths` gives the sizes of norms without tensors, and `slices` what the new tensors are of the old ones,
    which has to be known where that may be the work of several plans. Raises `ValueError` if there is no
    tensor of such a name.
    """
    for name in sorted((widths or {}).keys() - named_modules(model).keys()):
        raise ValueError(f"plan: made for a model with a norm named {name}; this model has none")
    norms = norms_of(model)
    for module in modules_of(model):
        for store in (module._parameters, module._buffers):
            for name, tensor in list(store.items()):
                if tensor is not None and tensor in new:
                    store[name] = new[tensor]  # type: ignore[assignment]
        for name, value in list(vars(module).items()):
            if type(value) in HOLDERS and value and name not in _STORES:
                vars(module)[name] = exchanged(value, new)
    sync_groups(model, slices or {})
    _resized(model, widths or {}, norms)


def sliced_copy(model: nn.Module, slices: Slices, widths: Mapping[str, int], meta: bool = False) -> nn.Module:
    """Return a smaller copy of `model` that shares every unsliced tensor; it is not for training.

    `widths`: the channels of norms without tensors. With `meta` it has shapes only: its floating-point
    tensors are on the device "meta".
    """
    if meta:
        tensors = named_tensors(model)
        new = {t: _shape(t, slices.get(name, {})) for name, t in tensors.items()}
    else:
        new = slice_model(model, slices)
    other = shared_copy(model, new)
    if slices or widths:
        _resized(other, widths, norms_of(model))
    return other


def copy_with(model: nn.Module, new: Mapping[str, Tensor], widths: Mapping[str, int]) -> nn.Module:
    """Copy `model` with `new` tensors by name and norms without tensors of `widths`.

    All other tensors are shared; the copy is not for training.
    """
    tensors = named_tensors(model)
    other = shared_copy(model, {tensors[name]: tensor for name, tensor in new.items()})
    _resized(other, widths, norms_of(model))
    return other


def _resized(model: nn.Module, widths: Mapping[str, int], norms: Mapping[str, Norm]) -> None:
    """Update the sizes that layers of `model` keep as attributes.

    `widths`: of norms without tensors; `norms`: those over channels, as they were before it was sliced.
    """
    sync_norms(model, norms, widths)
    sync_heads(model)
    for module in modules_of(model):
        sync_layer_sizes(module)
    set_widths(model, widths)


def _shape(tensor: Tensor, kept: Positions) -> Tensor:
    if not tensor.is_floating_point():
        return slice_tensor(tensor, kept)  # an index, or a count: its values matter
    return replacement(tensor, on_meta(sliced_shape(tensor.shape, kept), tensor.dtype))
