"""Convert arrays to and from GPU tensors, as :mod:`reprune.clustering.arrays` does on the host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ...arguments import is_tensor
from ..arrays import to_numpy
from . import interpreted

if TYPE_CHECKING:
    import torch


def to_tensor(x: object, name: str) -> torch.Tensor:
    """Return `x` on the GPU: on its own if it lies on one, else on the current one.

    Under Triton's interpreter, it is on the CPU.
    """
    import torch

    if isinstance(x, torch.Tensor):
        if x.layout != torch.strided or x.is_quantized:
            raise TypeError(f"{name}: expected a dense tensor; got {x.layout} of {x.dtype}")
        tensor = x.detach() if x.requires_grad else x
    else:
        array = to_numpy(x, name)
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise TypeError(f"{name}: expected real numbers of at most 64 bits; got dtype {array.dtype}")
        # torch knows neither another byte order nor negative strides
        tensor = torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))
    if tensor.is_cuda or interpreted():
        return tensor
    return tensor.to("cuda")


def to_float_tensor(x: object, name: str) -> torch.Tensor:
    """Return `x` on the GPU as float32 or float64.

    float16, bfloat16 and float32 become float32; integers and float64 become float64.

    Whether all numbers are finite is not checked, because that would wait for the GPU.
    """
    import torch

    tensor = to_tensor(x, name)
    dtype = tensor.dtype
    if dtype == torch.float32 or dtype == torch.float64:
        return tensor
    if dtype in (torch.float16, torch.bfloat16):
        return tensor.float()
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise TypeError(f"{name}: expected real numbers of at most 64 bits; got dtype {tensor.dtype}")
    return tensor.double()


def require_finite(x: torch.Tensor, name: str) -> None:
    """Raise `ValueError` unless all numbers are finite; waits for the GPU."""
    import torch

    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name}: expected finite numbers; got NaN or infinity")


def placed(x: npt.NDArray[Any], device: torch.device) -> torch.Tensor:
    """Copy a small array to `device` through pinned memory, so that the copy waits for no kernel."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(x))
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def together(parts: Sequence[torch.Tensor]) -> list[npt.NDArray[Any]]:
    """Return tensors of a dtype that numpy knows as arrays in memory of their own.

    One copy from each device brings all tensors that lie there.
    """
    import torch

    found: dict[int, npt.NDArray[Any]] = {}
    for device in dict.fromkeys(part.device for part in parts):
        own = [k for k, part in enumerate(parts) if part.device == device]
        all_bytes = torch.cat([parts[k].detach().reshape(-1).view(torch.uint8) for k in own]).cpu().numpy()
        ends = np.cumsum([parts[k].nbytes for k in own])[:-1]
        for k, some in zip(own, np.split(all_bytes, ends), strict=True):
            dtype = str(parts[k].dtype).removeprefix("torch.")
            found[k] = some.copy().view(dtype).reshape(parts[k].shape)
    return [found[k] for k in range(len(parts))]


def restore(x: object) -> Callable[[torch.Tensor], Any]:
    """Return a function that converts results to numpy, or to a tensor on the device of `x`."""
    if is_tensor(x):
        return lambda result: result.to(x.device)  # type: ignore[attr-defined]
    return lambda result: result.cpu().numpy()
