# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""Compute the distances of all points of many problems, in float64, and the nearest of the later points.

Points are scaled, and every distance is computed, as reprune/clustering/reference/linkage.py says, so no
square overflows or vanishes. `kernels/square.py` merges clusters by them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import EXACT, chip_of, device_guard, square_tile
from .rule import place_scaled
from .state import NOBODY, exponent_of, power_of_two


@triton.jit
def place_kernel(
    values,  # float64 [problems, n, D]
    totals,  # float64, the same: the largest number of a problem brought to 2^900, less an offset
    exponents,  # int64 [problems]: of the power of two that undoes it
    n,
    D: tl.constexpr,
    B: tl.constexpr,
):
    pid = tl.program_id(0).to(tl.int64)
    begin = pid * n * D
    tl.store(exponents + pid, place_scaled(values + begin, totals + begin, n, D, 1, D, B))


@triton.jit
def distances_of(totals, i, j, mask, D: tl.constexpr, B: tl.constexpr):
    """Compute the distances of point i to points j [B]; each pair has a power of two of its own."""
    largest = tl.zeros((B,), tl.float64)
    for c in range(D):
        step = tl.load(totals + i * D + c) - tl.load(totals + j * D + c, mask=mask, other=0)
        largest = tl.maximum(largest, tl.abs(step))
    exponent = exponent_of(largest)
    down = power_of_two(tl.minimum(-exponent, 1022))
    squares = tl.zeros((B,), tl.float64)
    for c in range(D):
        step = tl.load(totals + i * D + c) - tl.load(totals + j * D + c, mask=mask, other=0)
        step = step * down
        squares = squares + step * step
    return tl.sqrt(squares) * power_of_two(tl.maximum(exponent, -1022))


@triton.jit
def distance_kernel(
    totals,  # float64 [problems, n, D]
    matrix,  # float64 [problems, n, n]
    least,  # float64 [problems, n]: to the nearest point of a larger number
    nearest,  # int32 [problems, n]: which that is, the first of equally near ones
    n,
    D: tl.constexpr,
    B: tl.constexpr,
):
    pid = tl.program_id(0).to(tl.int64)  # one program per point
    problem = pid // n
    i = (pid % n).to(tl.int32)
    lane = tl.arange(0, B)
    totals += problem * n * D
    best = tl.full((B,), float("inf"), tl.float64)
    which = tl.full((B,), NOBODY, tl.int32)
    for j0 in range(0, n, B):
        j = j0 + lane
        distance = distances_of(totals, i, j, j < n, D, B)
        better = (j > i) & (j < n) & (distance < best)
        best = tl.where(better, distance, best)
        which = tl.where(better, j, which)
        tl.store(matrix + pid * n + j, distance, mask=j < n)
    low = tl.min(best, 0)
    tl.store(least + pid, low)
    tl.store(nearest + pid, tl.min(tl.where(best == low, which, NOBODY), 0))


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances of all points of problems [B, n, d]."""

    matrix: Tensor
    """float64 [B, n, n]: symmetric, with 0 on the diagonal."""
    least: Tensor
    """float64 [B, n]: to the nearest point of a larger number; infinity for the last."""
    nearest: Tensor
    """int32 [B, n]: that point, the first of equally near ones."""
    exponents: Tensor
    """int64 [B]: distances are to be multiplied by 2 to this power."""


def distances(points: Tensor) -> Distances:
    """Compute the distances of points [B, n, d], finite, B and n >= 1; trusts its arguments.

    Started on the current stream and not waited for.
    """
    B, n, d = points.shape
    values, device = points.double().contiguous(), points.device

    def made(dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    totals, exponents = made(torch.float64, B, n, d), made(torch.int64, B)
    found = Distances(
        made(torch.float64, B, n, n), made(torch.float64, B, n), made(torch.int32, B, n), exponents
    )
    how = {"D": d, **EXACT, **square_tile(n, chip_of(device))}
    with device_guard(device):
        place_kernel[B,](values, totals, exponents, n, **how)
        distance_kernel[B * n,](totals, found.matrix, found.least, found.nearest, n, **how)
    return found
