"""Choose tile sizes and chunk sizes, and copy small tables to the device."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

SCRATCH = 512 << 20
"""Bytes of state of the problems of one launch, at most, unless a single problem needs more."""

MOST_POINTS = 65535
"""Of one problem: positions are 16 of the bits of a key."""

Chip = tuple[int, int] | None
"""Compute capability of a GPU of NVIDIA, (0, 0) for one of AMD, None for Triton's interpreter."""


def chip_of(device: torch.device) -> Chip:
    if device.type == "cpu":
        return None
    return (0, 0) if torch.version.hip is not None else torch.cuda.get_device_capability(device)


def ward_tile(n: int, d: int, chip: Chip) -> dict[str, Any]:
    """Return how `ward_kernel` is launched for problems of n points: the tile of a scan, threads, registers.

    The columns of a scan's tile are the 32 positions of a tile of the state.
    Measured on an H200 for d = 9. More rows share what is loaded of a column; more warps share the rows, and
    hide each other's latency. Fewer registers let more programs run at once.
    """
    if chip is None:  # the interpreter wants few large steps
        return {"R": 32, "B": 512, "PTX": False, "num_warps": 1}
    nvidia = chip != (0, 0)
    most = next((k for k, most in enumerate((160, 384, 1536)) if n <= most), 3)
    rows, warps, registers = ((8, 1, 168), (8, 2, 128), (16, 4, 128), (32, 8, 128))[most]
    how: dict[str, Any] = {"R": rows, "B": 32 * warps, "PTX": nvidia, "num_warps": warps}
    return {**how, "maxnreg": registers} if nvidia else how


def line_tile(n: int, chip: Chip) -> dict[str, Any]:
    """Return how `line_kernel` is launched for problems of n points."""
    if chip is None:
        return {"B": 512, "num_warps": 1}
    warps = 1 if n <= 256 else 4 if n <= 2048 else 16
    return {"B": 32 * warps, "num_warps": warps}


def rule_tile(chip: Chip) -> dict[str, Any]:
    """Return how `rule_kernel` is launched."""
    return {"B": 512, "num_warps": 1} if chip is None else {"B": 128, "num_warps": 4}


def square_tile(n: int, chip: Chip) -> dict[str, Any]:
    """Return how the kernels of a matrix of distances are launched for problems of n points."""
    if chip is None:
        return {"B": 512, "num_warps": 1}
    warps = 1 if n <= 64 else 4 if n <= 1024 else 8
    return {"B": 32 * warps, "num_warps": warps}


def label_tile(n: int, chip: Chip) -> dict[str, Any]:
    """Return how `label_kernel` is launched for problems of n points."""
    if chip is None:
        return {"B": 512, "num_warps": 1}
    warps = 1 if n <= 256 else 4 if n <= 2048 else 16
    return {"B": 32 * warps, "num_warps": warps}


EXACT = {"enable_fp_fusion": False, "num_stages": 1}
"""Options of kernels that decide in float64: a multiply-add where none is written rounds otherwise. And no
loads ahead of loops: they cost registers, and time to compile."""


def on_device(values: Sequence[int] | npt.NDArray[Any], dtype: Any, device: torch.device) -> Tensor:
    """Copy a small table to `device` through pinned memory, so that the copy waits for no kernel."""
    table = torch.from_numpy(np.asarray(values, dtype=dtype))
    return table if device.type == "cpu" else table.pin_memory().to(device, non_blocking=True)


def device_guard(device: torch.device) -> AbstractContextManager[Any]:
    """Make `device` the current device for launches inside the block."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def padded(n: int, columns: int) -> int:
    """Return n rounded up to a whole number of tiles."""
    return -(-n // columns) * columns
