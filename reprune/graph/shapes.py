"""Work out the shapes of common results on the device "meta", where PyTorch takes milliseconds for each.

PyTorch computes many shapes there by decompositions in Python: 2 ms for a batch norm, of which a network has
fifty. Here are only cases whose sizes, strides and types leave no doubt; all others are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..modules.meta import on_meta, strides_of
from .state import Call

_POINTWISE = frozenset(
    (
        "relu relu6 gelu silu sigmoid tanh hardtanh hardswish hardsigmoid leaky_relu elu mish softplus clamp "
        "clamp_min neg abs exp log sqrt rsqrt reciprocal pow square erf sin cos add sub mul div copy"
    ).split()
)
"""Operations whose result has the type of their floating-point arguments, and the broadcast shape."""


def result_of(call: Call) -> Any:
    """Return what `call`, all of whose tensors are on "meta", gives; None where PyTorch is to be asked."""
    make = pointwise if call.name in _POINTWISE else _RESULTS.get(call.name)
    tensors = call.tensors()
    if make is None or not tensors or call.kwargs.get("out") is not None:
        return None
    dtype = tensors[0].dtype
    if dtype is not torch.float32 and dtype is not torch.float64:
        return None  # in half precision, the statistics of norms have another type
    for x in tensors:
        if x.dtype is not dtype:
            return None
    return make(call, tensors)


def pointwise(call: Call, tensors: Sequence[Tensor]) -> Tensor | None:
    """Return the result of a pointwise operation on contiguous tensors of which one has the full shape."""
    if any(isinstance(x, complex) or x.__class__ is str for x in call.scalars()):
        return None  # another type; div rounds
    first = tensors[0]
    if len(tensors) == 1:
        return first if call.writes_to_self else _alike(first)
    widest = max(tensors, key=Tensor.numel)
    if not all(_fits(x.shape, widest.shape) for x in tensors):
        return None
    if call.writes_to_self:
        return first if first.shape == widest.shape else None
    if all(x.shape == first.shape and x.stride() == first.stride() for x in tensors):
        return _alike(first)
    return _like(widest) if _is_plain(widest) and all(x.is_contiguous() for x in tensors) else None


def batch_norm(call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
    """Return what a batch norm in evaluation mode gives; nothing reads its statistics then."""
    x = tensors[0]
    shape = x.shape
    channels = shape[1:2]
    if call["training"] or not _is_plain(x):
        return None
    for one in tensors[1:]:
        if one.shape != channels:
            return None
    statistics = _empty(x, channels)
    return _empty(x, shape), statistics, statistics


def convolution(call: Call, tensors: Sequence[Tensor]) -> Tensor | None:
    """Return what a convolution gives, of batches of contiguous images by contiguous kernels."""
    x, kernel = tensors[:2]
    images, kernels, groups = x.shape, kernel.shape, call["groups"]
    if call["transposed"] or len(images) != len(kernels) or not (_is_plain(x) and _is_plain(kernel)):
        return None
    steps = call["stride"], call["padding"], call["dilation"]
    if images[1] != kernels[1] * groups or any(len(numbers) != len(images) - 2 for numbers in steps):
        return None
    sides = [
        (size + 2 * pad - dilation * (side - 1) - 1) // stride + 1
        for size, side, stride, pad, dilation in zip(images[2:], kernels[2:], *steps, strict=True)
    ]
    if min(sides, default=1) < 1 or kernels[0] % groups:
        return None  # an error, which PyTorch words
    return _empty(x, (images[0], kernels[0], *sides))


def layer_norm(call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
    """Return what a layer norm gives, with the statistics of each position."""
    x = tensors[0]
    k = x.dim() - len(call["normalized_shape"])
    statistics = (*x.shape[:k], *(1 for _ in x.shape[k:]))
    return _like(x), _empty(x, statistics), _empty(x, statistics)


def normalised(call: Call, tensors: Sequence[Tensor]) -> Tensor | None:
    """Return what a norm over channels gives, with the channels last in memory."""
    x, dim = tensors[0], call["dim"]
    if any(tensor.numel() != x.shape[dim] for tensor in tensors[1:]):
        return None  # an error, which PyTorch words
    return _empty(x, tuple(x.movedim(dim, -1).shape)).movedim(-1, dim)


def clone(call: Call, tensors: Sequence[Tensor]) -> Tensor:
    """Return a copy, in the strides that are asked for."""
    return torch.empty_like(tensors[0], memory_format=call["memory_format"] or torch.preserve_format)


def roll(call: Call, tensors: Sequence[Tensor]) -> Tensor | None:
    """Return what is left of a contiguous tensor when it is rolled."""
    return _like(tensors[0]) if _is_plain(tensors[0]) else None


def matmul(call: Call, tensors: Sequence[Tensor]) -> Tensor | None:
    """Return the product of the last two of two or three matrices, or batches of matrices."""
    a, b = tensors[-2:]
    if call.writes_to_self or len(tensors) > 3 or a.dim() != b.dim() or a.shape[-1] != b.shape[-2]:
        return None
    return _empty(a, (*a.shape[:-1], b.shape[-1]))


def softmax(call: Call, tensors: Sequence[Tensor]) -> Tensor | None:
    """Return what a softmax gives."""
    x = tensors[0]
    plain = _is_plain(x) and call["dtype" if call.has("dtype") else "half_to_float"] in (None, False)
    return _like(x) if plain else None


def mean(call: Call, tensors: Sequence[Tensor]) -> Tensor | None:
    """Return the mean along some dimensions."""
    x, dims = tensors[0], call["dim"] if call.has("dim") else None
    if not dims or not isinstance(dims, (list, tuple)) or call["dtype"] is not None or not _is_plain(x):
        return None
    gone = {dim % x.dim() for dim in dims}
    sizes = [1 if k in gone else n for k, n in enumerate(x.shape) if call["keepdim"] or k not in gone]
    return _empty(x, sizes)


def concatenation(call: Call, tensors: Sequence[Tensor]) -> Tensor | None:
    """Return contiguous tensors one behind the other."""
    first = tensors[0]
    if any(x.dim() != first.dim() or not _is_plain(x) for x in tensors):
        return None
    sizes, dim = list(first.shape), call["dim"] % first.dim()
    for x in tensors[1:]:
        if any(a != b for k, (a, b) in enumerate(zip(x.shape, first.shape, strict=True)) if k != dim):
            return None
        sizes[dim] += x.shape[dim]
    return _empty(first, sizes)


_RESULTS: dict[str, Callable[[Call, Sequence[Tensor]], Any]] = {
    "convolution": convolution,
    "native_batch_norm": batch_norm,
    "native_layer_norm": layer_norm,
    "reprune::normalised": normalised,
    "clone": clone,
    "roll": roll,
    "mm": matmul,
    "addmm": matmul,
    "bmm": matmul,
    "_safe_softmax": softmax,
    "_softmax": softmax,
    "_log_softmax": softmax,
    "mean": mean,
    "cat": concatenation,
}


def _empty(x: Tensor, sizes: Sequence[int]) -> Tensor:
    return on_meta(sizes, x.dtype)


def _like(x: Tensor) -> Tensor:
    return _empty(x, x.shape)


def _alike(x: Tensor) -> Tensor:
    """Return a new tensor in the order of the strides of `x`, without gaps."""
    return _like(x) if _is_plain(x) else torch.empty_like(x)


def _is_plain(x: Tensor) -> bool:
    """Return whether `x` has the strides of a new tensor, in dimensions of size 1 too."""
    return x.stride() == strides_of(x.shape)


def _fits(shape: Sequence[int], full: Sequence[int]) -> bool:
    """Return whether a tensor of `shape` broadcasts to `full`, which stays as it is."""
    k = len(full) - len(shape)
    return k >= 0 and all(n in (1, m) for n, m in zip(shape, full[k:], strict=True))
