"""Convert arrays in and out: numpy or torch, any real dtype, checked for NaN and infinity."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..aliases import Floats
from ..arguments import is_tensor

MOST = 2**30
"""Maximum number of points, filters or channels: they and their merges are numbered in 32 bits."""
MOST_ON_GPU = 65535
"""Maximum number of points or filters for the backend "triton", whose keys have 16 bits for a position."""
MOST_IN_MATRIX = 16384
"""Maximum number of points of the other linkages there: the distances of a problem take 2 GiB then."""
MOST_IN_SPACE = 2**24
"""The same for Ward's linkage in several dimensions, which numbers points in the digits of a float32."""


def shape_of(x: object) -> tuple[int, ...]:
    """Return the shape of an array or tensor, () for anything else, without copying."""
    return tuple(getattr(x, "shape", ()))


def device_of(x: object) -> str:
    """Return the type of the device that holds `x`: "cpu", "cuda", ..."""
    return str(x.device.type) if is_tensor(x) else "cpu"  # type: ignore[attr-defined]


def to_numpy(x: object, name: str) -> npt.NDArray[Any]:
    """Return `x` as a numpy array, without a copy where possible; bfloat16 becomes float32."""
    if is_tensor(x):
        import torch

        assert isinstance(x, torch.Tensor)
        if x.is_meta:
            raise TypeError(f"{name}: expected a tensor with values; got one on the device 'meta'")
        if x.layout != torch.strided or x.is_quantized:
            raise TypeError(f"{name}: expected a dense tensor; got {x.layout} of {x.dtype}")
        x = x.detach()
        return (x.float() if x.dtype == torch.bfloat16 else x).resolve_neg().cpu().numpy()
    try:
        return np.asarray(x)
    except ValueError as error:
        raise TypeError(f"{name}: expected an array of numbers; got {type(x).__name__} ({error})") from error


def to_floats(x: object, name: str) -> Floats:
    """Return `x` as finite float32 or float64 in native byte order.

    float16, bfloat16 and float32 become float32; integers and float64 become float64.
    """
    array = to_numpy(x, name)
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected real numbers of at most 64 bits; got dtype {array.dtype}")
    single = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    floats = array.astype(np.float32 if single else np.float64, copy=False)
    flags = floats.flags
    if not flags.carray and (not flags.aligned or any(stride % floats.itemsize for stride in floats.strides)):
        floats = np.ascontiguousarray(floats).copy()
    if not is_finite(floats):
        raise ValueError(f"{name}: expected finite numbers; got NaN or infinity")
    return floats


def is_finite(x: Floats) -> bool:
    # a sum is NaN or infinite if an element is, and needs no temporary; it can also overflow, so look closer
    # then; of a few numbers the sum of squares is there soonest, and does not warn
    if x.size <= 4096:
        return math.isfinite(np.vdot(x, x)) or bool(np.isfinite(x).all())
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(x.sum())) or bool(np.isfinite(x).all())


def like(x: object) -> Callable[[npt.NDArray[Any]], Any]:
    """Return a function that converts results to the kind of `x`: numpy, or tensors on its device."""
    if not is_tensor(x):
        return lambda result: result
    import torch

    assert isinstance(x, torch.Tensor)
    device = x.device
    return lambda result: torch.from_numpy(np.ascontiguousarray(result)).to(device)


def integer_table(x: object, name: str) -> npt.NDArray[Any]:
    """Return `x` as integers [O, I] of any integer dtype, O >= 1, else raise `ValueError`."""
    table = to_numpy(x, name)
    if table.ndim != 2 or table.dtype.kind not in "iu" or table.shape[0] < 1:
        raise ValueError(f"{name}: expected integers [O, I], O >= 1; got {table.dtype} {list(table.shape)}")
    return table
