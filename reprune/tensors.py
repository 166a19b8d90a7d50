"""Arrays in and out of the GPU: what :mod:`reprune.arrays` is for the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .arrays import is_tensor, to_numpy
from .backend import interpreted

if TYPE_CHECKING:
    import torch


def to_tensor(x: object, name: str) -> torch.Tensor:
    """``x`` on the GPU: where it is, if that is a GPU, else on the current one. Under Triton's interpreter on
    the CPU."""
    import torch

    if isinstance(x, torch.Tensor):
        if x.layout != torch.strided or x.is_quantized:
            raise TypeError(f"{name}: expected a dense tensor; got {x.layout} of {x.dtype}")
        tensor = x.detach()
    else:
        array = to_numpy(x, name)
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise TypeError(f"{name}: expected real numbers of at most 64 bits; got dtype {array.dtype}")
        # torch knows neither another byte order nor negative strides
        tensor = torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
    if interpreted() or tensor.is_cuda:
        return tensor
    return tensor.to("cuda")


def to_float_tensor(x: object, name: str) -> torch.Tensor:
    """``x`` on the GPU as float32 (for float16, bfloat16, float32) or float64 (for integers, float64).

    It is not looked at whether all numbers are finite: that would wait for the GPU.
    """
    import torch

    tensor = to_tensor(x, name)
    if tensor.dtype in (torch.float16, torch.bfloat16):
        return tensor.float()
    if tensor.dtype in (torch.float32, torch.float64):
        return tensor
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise TypeError(f"{name}: expected real numbers of at most 64 bits; got dtype {tensor.dtype}")
    return tensor.double()


def finite(x: torch.Tensor, name: str) -> None:
    """Raises ValueError unless all numbers are finite; waits for the GPU."""
    import torch

    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name}: expected finite numbers; got NaN or infinity")


def back(x: object) -> Callable[[torch.Tensor], Any]:
    """A function that turns results into what the argument ``x`` was: numpy, or a tensor on its device."""
    if is_tensor(x):
        return lambda result: result.to(x.device)  # type: ignore[attr-defined]
    return lambda result: result.cpu().numpy()
