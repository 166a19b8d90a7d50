"""Choose tile sizes and chunk sizes, and copy small tables to the device."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SCRATCH = 256 << 20
"""Maximum bytes of state in one launch, unless a single problem needs more."""

HALF_RATE = {(8, 0), (9, 0), (10, 0)}
"""Compute capabilities that add float64 at half the rate of float32."""


Chip = tuple[int, int] | None
"""Compute capability of a GPU of NVIDIA, (0, 0) for one of AMD, None for Triton's interpreter."""


def chip_of(device: torch.device) -> Chip:
    if device.type == "cpu":
        return None
    return (0, 0) if torch.version.hip is not None else torch.cuda.get_device_capability(device)


def ward_shape(d: int, dtype: torch.dtype, chip: Chip) -> dict[str, int]:
    """Return the tile of a scan, rows by columns, and the number of warps per problem.

    With one warp no barrier waits and nothing is computed four times. 8 x 32 keeps the accumulators of a scan
    and the coordinates of eight rows in registers; in float64, for 5 to 9 coordinates, the compiler manages
    that on Hopper and spills elsewhere, where four rows read the state twice as often: see
    benchmarks/gpu/tiles.py.
    """
    if chip is None:  # the interpreter wants few large steps
        return {"R": 64, "C": 256, "num_warps": 1}
    rows = 4 if dtype == torch.float64 and 4 < d <= 9 and chip != (9, 0) else 8
    return {"R": rows, "C": 32, "num_warps": 1}


def cut_shape(n: int) -> dict[str, int]:
    """Return the launch parameters of the kernels in kernels/cut.py for n points."""
    N = max(32, 1 << (n - 1).bit_length())
    return {"N": N, "num_warps": 16 if N > 2048 else max(1, N // 512)}


def state_dtype(precision: str, tables: Sequence[Tensor]) -> torch.dtype:
    """Return the float type of the state for `precision` "auto", "float32" or "float64"."""
    if precision == "auto":
        device = tables[0].device
        if device.type == "cpu" or any(table.dtype == torch.float64 for table in tables):
            return torch.float64
        fast = torch.version.hip is not None or torch.cuda.get_device_capability(device) in HALF_RATE
        return torch.float64 if fast else torch.float32
    if precision not in ("float32", "float64"):
        raise ValueError(f"precision: expected 'auto', 'float32' or 'float64'; got {precision!r}")
    return torch.float32 if precision == "float32" else torch.float64


def on_device(values: Sequence[int] | npt.NDArray[Any], dtype: Any, device: torch.device) -> Tensor:
    """Copy a small table to `device` through pinned memory, so that the copy waits for no kernel."""
    table = torch.from_numpy(np.asarray(values, dtype=dtype))
    return table if device.type == "cpu" else table.pin_memory().to(device, non_blocking=True)


def on(device: torch.device) -> AbstractContextManager[Any]:
    """Make `device` the current device for launches inside the block."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def padded(n: int, columns: int) -> int:
    """Return n rounded up to a whole number of tiles."""
    return -(-n // columns) * columns
