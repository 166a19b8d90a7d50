"""Tell on how few positions an operation shows what it does to channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..aliases import Ints
from .given import Given
from .rules import is_pointwise
from .rules_attention import FUSED
from .state import Call

ROWS = 24
"""Outputs of a layer that are computed, evenly over all: each is a sum over all of its inputs."""


@dataclass(frozen=True)
class Narrowing:
    """The positions that are taken of the dimensions of a call's tensors; all of those not named here."""

    tensors: list[dict[int, Ints]]
    """{dimension: positions} of each argument."""
    outs: dict[int, Ints] = field(default_factory=dict)
    """{dimension: positions} that this leaves of the result."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Arguments that follow from sizes, for the sizes that are left."""


def narrowing_of(call: Call, tensors: Sequence[Given]) -> Narrowing:
    """Return what is taken of the `tensors` of `call`, by what its operation does."""
    narrow = _pointwise if is_pointwise(call) else _NARROWINGS.get(call.name)
    return narrow(call, tensors) if narrow is not None else Narrowing([{} for _ in tensors])


def _first(given: Given, dims: Sequence[int], most: int = 1) -> dict[int, Ints]:
    """Take the first positions along `dims`, but all where there are labels."""
    return {d: np.arange(min(most, given.shape[d])) for d in dims if given.labels(d) is None}


def _pointwise(call: Call, tensors: Sequence[Given]) -> Narrowing:
    cuts: list[dict[int, Ints]] = [{} for _ in tensors]
    for j in range(1, 1 + max(len(given.shape) for given in tensors)):
        there = [(given, cut) for given, cut in zip(tensors, cuts, strict=True) if j <= len(given.shape)]
        if all(given.labels(-j) is None for given, _ in there):
            for given, cut in there:
                cut[len(given.shape) - j] = np.arange(1)
    return Narrowing(cuts)


def _batch_norm(call: Call, tensors: Sequence[Given]) -> Narrowing:
    x = tensors[0]
    dims = [d for d in range(len(x.shape)) if d != 1]
    return Narrowing([_first(x, dims, most=2), *({} for _ in tensors[1:])])


def _layer_norm(call: Call, tensors: Sequence[Given]) -> Narrowing:
    x = tensors[0]
    dims = range(len(x.shape) - len(call["normalized_shape"]))
    return Narrowing([_first(x, dims), *({} for _ in tensors[1:])])


def _group_norm(call: Call, tensors: Sequence[Given]) -> Narrowing:
    x = tensors[0]
    if any(x.labels(d) is not None for d in range(len(x.shape)) if d != 1):
        return Narrowing([{} for _ in tensors])
    cut = _first(x, [0], most=1) | _first(x, range(2, len(x.shape)), most=2)
    area = int(np.prod([cut[d].size for d in range(2, len(x.shape))]))
    return Narrowing([cut, *({} for _ in tensors[1:])], arguments={"N": 1, "HxW": area})


def _convolution(call: Call, tensors: Sequence[Given]) -> Narrowing:
    """Take one position of the kernels and of the images."""
    x, kernel, *bias = tensors
    spatial = len(kernel.shape) - 2
    one = np.arange(1)
    cuts: list[dict[int, Ints]] = [
        {len(x.shape) - 1 - k: one for k in range(spatial)},
        {2 + k: one for k in range(spatial)},
        *({} for _ in bias),
    ]
    if len(x.shape) == len(kernel.shape) and x.labels(0) is None:
        cuts[0][0] = one
    outs: dict[int, Ints] = {}
    if call["groups"] == 1:
        o = 1 if call["transposed"] else 0
        rows = _rows(kernel.shape[o])
        cuts[1][o] = rows
        for cut in cuts[2:]:
            cut[0] = rows
        outs[len(x.shape) - spatial - 1] = rows
    ones, zeros = [1] * spatial, [0] * spatial
    plain = {"stride": ones, "padding": zeros, "dilation": ones, "output_padding": zeros}
    return Narrowing(cuts, outs, plain)


def _product(call: Call, tensors: Sequence[Given]) -> Narrowing:
    """Take one row of the left matrix, and some columns of the right one."""
    *added, a, b = tensors
    rows, one = _rows(b.shape[1]), np.arange(1)
    left = {0: one} if a.labels(0) is None else {}
    cuts = []
    for given in added:
        cut = {len(given.shape) - 1: rows} if given.shape and given.shape[-1] > 1 else {}
        if len(given.shape) == 2 and (left or given.shape[0] == 1):
            cut[0] = one
        cuts.append(cut)
    return Narrowing([*cuts, left, {1: rows}], {1: rows})


def _linear(call: Call, tensors: Sequence[Given]) -> Narrowing:
    x, weight, *bias = tensors
    rows = _rows(weight.shape[0])
    last = len(x.shape) - 1
    return Narrowing([_first(x, range(last)), {0: rows}, *({0: rows} for _ in bias)], {last: rows})


def _rows(size: int) -> Ints:
    rows: Ints = (
        np.unique(np.linspace(0, size - 1, ROWS).astype(np.int64)) if size > ROWS else np.arange(size)
    )
    return rows


def _cat(call: Call, tensors: Sequence[Given]) -> Narrowing:
    ndim = max(len(given.shape) for given in tensors)
    joint = call["dim"] % ndim
    fixed = [
        d
        for d in range(ndim)
        if d != joint and all(len(given.shape) == ndim and given.labels(d) is None for given in tensors)
    ]
    return Narrowing([_first(given, fixed) for given in tensors])


def _embedding(call: Call, tensors: Sequence[Given]) -> Narrowing:
    _, indices = tensors
    return Narrowing([{0: np.arange(1)}, _first(indices, range(len(indices.shape)))])


def _index_put(call: Call, tensors: Sequence[Given]) -> Narrowing:
    """Write to one place: the numbers of places are made up, and what stays where two are the same is chance.

    Lists of numbers side by side, which are all that the rule follows, are one dimension of the values.
    """
    x, *numbers, values = tensors
    indexed = [k for k, index in enumerate(call["indices"]) if index is not None]
    if any(len(given.shape) != 1 or given.dtype == torch.bool for given in numbers):
        return Narrowing([{} for _ in tensors])
    one = np.arange(1)
    d = len(values.shape) - len(x.shape) + indexed[-1]
    cut = {d: one} if d >= 0 and values.shape[d] > 1 else {}
    return Narrowing([{}, *({0: one} for _ in numbers), cut])


def _attention(call: Call, tensors: Sequence[Given]) -> Narrowing:
    """Take two places of the sequences and two numbers of each, and one of the batch."""
    if any(given.labels(-k) is not None for given in tensors for k in (1, 2)):
        return Narrowing([{} for _ in tensors])
    cuts = []
    for given in tensors:
        ndim = len(given.shape)
        cut = {d: np.arange(2) for d in (ndim - 2, ndim - 1) if given.shape[d] > 1}
        batch = [d for d in range(ndim - 3) if all(_unlabelled(other, d - ndim) for other in tensors)]
        cuts.append(cut | dict.fromkeys(batch, np.arange(1)))
    return Narrowing(cuts)


def _unlabelled(given: Given, k: int) -> bool:
    return -k > len(given.shape) or given.labels(k) is None


_NARROWINGS: dict[str, Callable[[Call, Sequence[Given]], Narrowing]] = {
    "convolution": _convolution,
    "mm": _product,
    "addmm": _product,
    "linear": _linear,
    "cat": _cat,
    "embedding": _embedding,
    "index_put": _index_put,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    **dict.fromkeys(FUSED, _attention),
}
