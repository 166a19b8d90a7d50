"""Follow labels through operations that move, join or reduce dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..aliases import Ints
from .dimensions import places_of
from .labels import FIXED, fixed
from .propagation import Propagation
from .splitting import split
from .state import FREE, Call, Dim, State


def movement(known: Propagation, call: Call, is_activation: bool) -> None:
    """Run the operation on position numbers, one labelled dimension at a time, to see where they go.

    Where whole dimensions only change places that is known beforehand.
    """
    x, *others = call.tensors()
    for other in others:
        known.pin(other, f"is an index of {call.func}")
    state = known.state(x)
    outs = call.outputs()
    if not x.numel() or not all(out.numel() for out in outs):  # no positions to follow: boxes, but none found
        known.pin(x, f"is empty in {call.func} on the example inputs")
        state = State((None,) * x.dim(), state.is_activation)
    if all(d is FREE or size == 1 for d, size in zip(state.dims, x.shape, strict=True)):
        dims: list[list[Dim]] = [[FREE if size > 1 else None for size in out.shape] for out in outs]
    else:
        dims = [[FREE if fresh else None for fresh in _expanded(call, x, out)] for out in outs]
        labelled = state.labelled()
        places = places_of(call, x, outs[0], labelled) if len(outs) == 1 else None
        for k in labelled:
            labels = state.labels(k)
            if labels is not None and places is not None:
                _place(known, dims[0], {places[k]: labels}, call)
            elif labels is not None:
                for out_dims, moved in zip(dims, _moved(known, call, x, k, labels), strict=True):
                    _place(known, out_dims, moved, call)
        for k in (k for k, d in enumerate(state.dims) if d is FREE and x.shape[k] > 1 and len(outs) == 1):
            place = (places_of(call, x, outs[0], [k]) or {}).get(k)
            if place is not None and dims[0][place] is None:
                dims[0][place] = FREE
    for out, out_dims in zip(outs, dims, strict=True):
        if call.operation.is_view:
            known.viewed(out, x)
        known.set(out, out_dims, is_activation)


def _expanded(call: Call, x: Tensor, out: Tensor) -> list[bool]:
    """Return which dimensions of `out` are copies: new ones, and those that were of size 1."""
    if call.name not in ("expand", "repeat"):
        return [False] * out.dim()
    old = [1] * (out.dim() - x.dim()) + list(x.shape)
    return [before == 1 and after > 1 for before, after in zip(old, out.shape, strict=True)]


def _place(known: Propagation, out: list[Dim], moved: dict[int, Ints], call: Call) -> None:
    for d, labels in moved.items():
        taken = out[d]
        if taken is None or taken is FREE:
            out[d] = labels
        else:  # two cut dimensions in one: no slice of it is a slice of both
            known.constraints.pin(labels, f"is merged with other channels in {call.func}")
            known.constraints.pin(taken, f"is merged with other channels in {call.func}")


def _moved(known: Propagation, call: Call, x: Tensor, k: int, labels: Ints) -> list[dict[int, Ints]]:
    """Return {dimension: its labels} for each output, from the labels along dimension `k` of `x`."""
    parts, varying = _followed(known, call, x, k)
    if (len(parts) > 1 and any(varying)) or call.name in (
        "split",
        "split_with_sizes",
        "unsafe_split",
        "unbind",
    ):
        return _chunks(known, call, parts, varying, labels)
    (part,), (where,) = parts, varying
    if not where:
        known.constraints.pin(labels, f"is indexed explicitly in {call.func}")
        return [{}]
    if len(where) == 1:
        taken = _positions_along(part, where[0])
        if np.unique(taken).size < labels.size:
            known.constraints.pin(labels, f"is cut at a fixed place by {call.func}")
        return [{where[0]: labels[taken]}]
    return [split(known, call, x, part, where, k, labels)]


def _followed(known: Propagation, call: Call, x: Tensor, k: int) -> tuple[list[Tensor], list[list[int]]]:
    """Run the operation on the positions along dimension `k` of `x`, equal calls once.

    Return the positions in each output, of length 1 where they are the same all along, and the dimensions
    where they are not.
    """
    form = call.form(x)
    key = None if form is None else (k, form)
    found: tuple[list[Tensor], list[list[int]]] | None = known.followed.get(key)
    if found is None:
        shape = [1] * x.dim()
        shape[k] = x.shape[k]
        device = "cpu" if x.is_meta else x.device
        positions = torch.arange(x.shape[k], device=device).view(shape).expand(x.shape)
        parts = call.on(x, positions)
        varying = [_varying(part, positions) for part in parts]
        found = [_narrowed(part, where).clone() for part, where in zip(parts, varying, strict=True)], varying
        if key is not None:
            known.followed[key] = found
    return found


def _narrowed(part: Tensor, where: list[int]) -> Tensor:
    for d in range(part.dim()):
        if d not in where and part.shape[d] > 1:
            part = part.narrow(d, 0, 1)
    return part


def _varying(part: Tensor, positions: Tensor) -> list[int]:
    """Return the dimensions of `part` along which the positions in it differ."""
    if part.untyped_storage().data_ptr() == positions.untyped_storage().data_ptr():  # a view of each once
        return [d for d in range(part.dim()) if part.shape[d] > 1 and part.stride(d) != 0]
    where = [d for d in range(part.dim()) if part.shape[d] > 1 and part.stride(d) != 0]
    part = _narrowed(part, where)
    for d in tuple(where):
        if not bool((part != part.narrow(d, 0, 1)).any()):
            where.remove(d)
            part = part.narrow(d, 0, 1)
    return where


def _positions_along(part: Tensor, d: int) -> Ints:
    """Return the positions along dimension `d`, the only one along which `part` varies."""
    along: Ints = part[tuple(slice(None) if e == d else 0 for e in range(part.dim()))].cpu().numpy()
    return along


def _chunks(
    known: Propagation, call: Call, parts: list[Tensor], varying: list[list[int]], labels: Ints
) -> list[dict[int, Ints]]:
    """Unite equal chunks with each other, so that they stay equal; cut others at fixed places."""
    if all(len(where) <= 1 for where in varying) and not any(
        where == [] and p.numel() for p, where in zip(parts, varying, strict=True)
    ):
        chunks = [_positions_along(part, where[0]) for part, where in zip(parts, varying, strict=True)]
        if all(
            np.array_equal(chunk, np.arange(labels.size)) for chunk in chunks
        ):  # cut along another dimension
            return [{where[0]: labels} for where in varying]
        if len({chunk.size for chunk in chunks}) == 1 and np.array_equal(
            np.sort(np.concatenate(chunks)), np.arange(labels.size)
        ):
            for chunk in chunks[1:]:
                known.constraints.unite(labels[chunks[0]], labels[chunk], "is an equal chunk")
            return [{where[0]: labels[chunk]} for where, chunk in zip(varying, chunks, strict=True)]
    known.constraints.pin(labels, f"is cut at a fixed place by {call.func}")
    return [{} for _ in parts]


def cat(known: Propagation, call: Call, is_activation: bool) -> None:
    """Concatenate labels along one dimension and unite the others."""
    tensors = [
        x for x in call["tensors"] if x.dim() == call.out.dim()
    ]  # an old rule lets empty 1-D tensors pass
    d = call["dim"] % call.out.dim()
    joined: list[Ints] = []
    for x in tensors:
        labels = known.state(x).labels(d)
        joined.append(labels if labels is not None else fixed(x.shape[d]))
    labels_along = np.concatenate(joined)
    dims = _united(known, call, tensors)
    dims[d] = labels_along if (labels_along != FIXED).any() else None
    known.set(call.out, dims, is_activation)


def stack(known: Propagation, call: Call, is_activation: bool) -> None:
    """Add a new dimension that cannot be pruned; unite the others."""
    dims = _united(known, call, call["tensors"])
    dims.insert(call["dim"] % call.out.dim(), None)
    known.set(call.out, dims, is_activation)


def _united(known: Propagation, call: Call, tensors: list[Tensor]) -> list[Dim]:
    dims = list(known.state(tensors[0]).dims)
    joint = call["dim"] % call.out.dim() if call.name == "cat" else None
    for x in tensors[1:]:
        for k, dim in enumerate(known.state(x).dims):
            if k != joint:
                dims[k] = known.unite(dims[k], dim, f"meets fixed channels in {call.func}")
    return dims


def pad(known: Propagation, call: Call, is_activation: bool) -> None:
    """Add positions that always exist; a negative padding cuts at a fixed place."""
    x, widths = call["self"], list(call["pad"])
    dims = list(known.state(x).dims)
    for n in range(len(widths) // 2):
        k = x.dim() - 1 - n
        labels, (low, high) = known.state(x).labels(k), widths[2 * n : 2 * n + 2]
        if labels is None or low == high == 0:
            continue
        if min(low, high) < 0:
            known.constraints.pin(labels, f"is cut at a fixed place by {call.func}")
            dims[k] = None
        else:
            dims[k] = np.concatenate([fixed(low), labels, fixed(high)])
    known.set(call.out, dims, is_activation)


def index_put(known: Propagation, call: Call, is_activation: bool) -> None:
    """Pin the indexed dimensions; along the others, unite the written values with the tensor."""
    x, values = call["self"], call["values"]
    why = f"is written by number in {call.func}"
    indexed = [k for k, index in enumerate(call["indices"]) if index is not None]
    for k in indexed:
        known.pin(call["indices"][k], why)
    known.pin(x, why, indexed)
    dims: list[Dim] = [None] * x.dim()
    # Lists of numbers side by side become one dimension of the values; others move dimensions about.
    plain = indexed == list(range(indexed[0], indexed[-1] + 1)) and all(
        call["indices"][k].dim() == 1 for k in indexed
    )
    if not plain:
        known.pin(x, why)
        known.pin(values, why)
    for k in range(x.dim()):
        if plain and k not in indexed:
            place = (
                (k if k < indexed[0] else k - len(indexed) + 1) - (x.dim() - len(indexed) + 1) + values.dim()
            )
            meets = place >= 0 and values.shape[place] > 1
            dims[k] = known.state(x).dims[k]
            if meets:
                dims[k] = known.unite(dims[k], known.state(values).dims[place], why)
    if call.out is x:
        known.write(x, dims, is_activation, str(call.func))
    else:
        known.set(call.out, dims, is_activation)


def glu(known: Propagation, call: Call, is_activation: bool) -> None:
    """Unite the two halves."""
    x = call["self"]
    k = call["dim"] % x.dim()
    dims = list(known.state(x).dims)
    labels = known.state(x).labels(k)
    if labels is not None:
        value, gate = np.split(labels, 2)
        known.constraints.unite(value, gate, "is a half of a gated unit")
        dims[k] = value
    known.set(call.out, dims, is_activation)


def as_strided(known: Propagation, call: Call, is_activation: bool) -> None:
    """Carry labels if only the memory format changes, in place and with the old shape; else pin."""
    x = call["self"]
    if call.out is x and len(known.state(x).dims) == x.dim():
        return
    known.pin(x, f"is rearranged in an unsupported way by {call.func}")
    known.set(call.out, [None] * call.out.dim(), is_activation)


def resize(known: Propagation, call: Call, is_activation: bool) -> None:
    """Forget a tensor that is emptied, to take the next result; pin it if anything is left or shows it."""
    known.resized(call["self"], f"shares its memory with what is resized by {call.func}")
    if call.out.numel():
        known.pin(call["self"], f"is rearranged in an unsupported way by {call.func}")
    known.set(call.out, [None] * call.out.dim(), is_activation and bool(call.out.numel()))


def as_complex(known: Propagation, call: Call, is_activation: bool) -> None:
    """Take the two numbers along the last dimension for one, as rotary embeddings do."""
    x = call["self"]
    known.pin(x, f"is a part of a number in {call.func}", [x.dim() - 1])
    known.viewed(call.out, x)
    known.set(call.out, list(known.state(x).dims[:-1]), is_activation)


def as_real(known: Propagation, call: Call, is_activation: bool) -> None:
    """Take the two parts of each number for a last dimension."""
    known.viewed(call.out, call["self"])
    known.set(call.out, [*known.state(call["self"]).dims, None], is_activation)


def conjugate(known: Propagation, call: Call, is_activation: bool) -> None:
    """Keep all labels: in the same memory other signs are read."""
    known.viewed(call.out, call["self"])
    known.set(call.out, list(known.state(call["self"]).dims), is_activation)


def reduction(known: Propagation, call: Call, is_activation: bool) -> None:
    """Pin the reduced dimensions: a masked channel is not removed from a mean or a maximum."""
    x = call.tensors()[0]
    over = reduced(call, x.dim())
    why = f"is reduced over by {call.func}"
    heads = _mean_over_heads(known, call, x, over)
    if heads is None:
        known.pin(x, why, over)
    else:
        known.pin_if_read(call.out, heads, why)
    dims = [None if k in over else d for k, d in enumerate(known.state(x).dims)]
    for out in call.outputs():
        kept = dims if out.dim() == x.dim() else [d for k, d in enumerate(dims) if k not in over]
        known.set(out, kept if len(kept) == out.dim() else [None] * out.dim(), is_activation)


def _mean_over_heads(known: Propagation, call: Call, x: Tensor, over: list[int]) -> Ints | None:
    """Return the heads of an attention over which the call takes the mean; None if it does anything else.

    An attention makes the mean of its weights for whoever wants to see them, and often nobody does.
    """
    labels = known.state(x).labels(over[0]) if call.name == "mean" and len(over) == 1 else None
    if labels is None or not known.heads or not np.isin(labels, np.concatenate(known.heads)).all():
        return None
    return labels


def reduced(call: Call, ndim: int) -> list[int]:
    """Return the dimensions over which a reduction goes."""
    dim: Any = call["dim"] if call.has("dim") else None
    if dim is None or dim == []:
        return list(range(ndim))
    return [d % ndim for d in ([dim] if isinstance(dim, int) else dim)] if ndim else []


def spatial(n: int) -> Callable[[Propagation, Call, bool], None]:
    """Return a rule for pools, resampling and reflecting pads, which work on the last `n` dimensions.

    The other dimensions stay as they are.
    """

    def rule(known: Propagation, call: Call, is_activation: bool) -> None:
        x = call.tensors()[0]
        known.pin(x, f"is a spatial dimension of {call.func}", list(range(x.dim() - n, x.dim())))
        for out in call.outputs():
            known.set(out, [*known.state(x).dims[:-n], *[None] * n], is_activation)

    return rule
