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
from .rule import place_scaled, scaled
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
    exponents,  # int64 [problems]: with SCALED, distances are multiplied by 2 to this power
    n,
    D: tl.constexpr,
    SCALED: tl.constexpr,  # then there is no `least` and no `nearest`
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
        if SCALED:
            distance = scaled(distance, tl.load(exponents + problem))
        better = (j > i) & (j < n) & (distance < best)
        best = tl.where(better, distance, best)
        which = tl.where(better, j, which)
        tl.store(matrix + pid * n + j, distance, mask=j < n)
    if SCALED == 0:
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
    found = _made(points)
    _launch(points, found, SCALED=0)
    return found


def pairwise(points: Tensor) -> Tensor:
    """Return the distances [B, n, n] of points [B, n, d] as they are, with no scale to undo."""
    found = _made(points)
    if len(points) > 0:
        _launch(points, found, SCALED=1)
    return found.matrix


def _made(points: Tensor) -> Distances:
    B, n, _ = points.shape

    def made(dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=points.device)

    return Distances(
        made(torch.float64, B, n, n),
        made(torch.float64, B, n),
        made(torch.int32, B, n),
        made(torch.int64, B),
    )


def _launch(points: Tensor, found: Distances, SCALED: int) -> None:
    B, n, d = points.shape
    values, device = points.double().contiguous(), points.device
    totals = torch.empty_like(values)
    how = {"D": d, **EXACT, **square_tile(n, chip_of(device))}
    with device_guard(device):
        place_kernel[B,](values, totals, found.exponents, n, **how)
        distance_kernel[B * n,](
            totals, found.matrix, found.least, found.nearest, found.exponents, n, SCALED=SCALED, **how
        )
