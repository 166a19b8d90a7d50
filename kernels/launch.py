"""Choose tile sizes and chunk sizes, launch kernels, and copy small tables to the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
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


@cache
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


_COMPILED: dict[tuple[Any, ...], Any] = {}


def launch(
    kernel: Any, programs: int, given: Sequence[object], how: Mapping[str, Any], device: torch.device
) -> None:
    """Launch `kernel` for that many programs on the current stream of `device`, the current device.

    `given` and the constants in `how` are the arguments in their order; types of `given` follow from `how`.
    What Triton compiled is kept and launched as it is: by its own way Triton looks at every argument, option
    and global constant again, which takes up to ten times as long as the launch.
    """
    key = (kernel, device, *how.items())
    compiled = _COMPILED.get(key)
    if compiled is not None:
        compiled[programs, 1, 1](*given, *[how[name] for name in kernel.arg_names[len(given) :]])
        return
    compiled = kernel[programs,](*given, **how)
    if compiled is not None:  # the interpreter compiles nothing
        _COMPILED[key] = compiled


class Words:
    """Numbers int64 in one piece of memory of the device: small tables, and behind them room for results."""

    def __init__(self, tables: int, room: int, device: torch.device) -> None:
        self.all = torch.empty(tables + room, dtype=torch.int64, device=device)
        self.room = self.all[tables:]
        self._tables: npt.NDArray[np.int64] = np.empty(tables, np.int64)
        self._end = 0

    def put(self, table: npt.NDArray[np.int64]) -> Tensor:
        """Return the place of a table on the device, where it will be after :meth:`send`."""
        begin, self._end = self._end, self._end + table.size
        self._tables[begin : self._end] = table.ravel()
        return self.all[begin : self._end]

    def send(self) -> None:
        """Copy all tables at once on the current stream; from pinned memory, which waits for no kernel."""
        tables = torch.from_numpy(self._tables)
        if self.all.device.type != "cpu":
            tables = tables.pin_memory()
        self.all[: self._end].copy_(tables, non_blocking=True)


def device_guard(device: torch.device) -> AbstractContextManager[Any]:
    """Make `device` the current device for launches inside the block."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def padded(n: int, columns: int) -> int:
    """Return n rounded up to a whole number of tiles."""
    return -(-n // columns) * columns
