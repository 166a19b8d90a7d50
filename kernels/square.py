# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""Link problems by single, complete or average linkage on a matrix of distances, one problem per program.

One merge after the other, as the rule in reprune/clustering/reference/linkage.py reads: every cluster knows
its nearest among those of larger numbers, so the lowest pair is found in time O(n), and after a merge only
those look again whose nearest took part in it. New distances are by the formulas of Lance and Williams
(*Computer Journal* 9, 1967), in the row and the column of the cluster that stays.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import EXACT, SCRATCH, chip_of, device_guard, square_tile
from .linkage import Trees, dendrograms
from .pairwise import distances
from .rule import lowest, scaled
from .state import NOBODY

METHODS = ("single", "complete", "average")
SINGLE = tl.constexpr(0)
COMPLETE = tl.constexpr(1)


@triton.jit
def combined(x, y, nx, ny, METHOD: tl.constexpr):
    """Return the distance of a union to others from those of its parts, x of `nx` points and y of `ny`."""
    if METHOD == SINGLE:
        z = tl.minimum(x, y)
    elif METHOD == COMPLETE:
        z = tl.maximum(x, y)
    else:
        z = (nx * x + ny * y) / (nx + ny)
    return z


@triton.jit
def look(matrix, sizes, least, nearest, i, n, B: tl.constexpr):
    """Find the nearest of those above cluster i, the first of equally near ones."""
    best = tl.full((B,), float("inf"), tl.float64)
    which = tl.full((B,), NOBODY, tl.int32)
    row = matrix + i.to(tl.int64) * n
    for j0 in range((i + 1) // B * B, n, B):
        j = j0 + tl.arange(0, B)
        alive = (j > i) & (j < n)
        alive = alive & (tl.load(sizes + j, mask=alive, other=0) > 0)
        height = tl.load(row + j, mask=alive, other=float("inf"))
        better = height < best
        best = tl.where(better, height, best)
        which = tl.where(better, j, which)
    low = tl.min(best, 0)
    tl.store(least + i, low)
    tl.store(nearest + i, tl.min(tl.where(best == low, which, NOBODY), 0))


@triton.jit
def unite(matrix, sizes, least, nearest, a, b, na, nb, n, METHOD: tl.constexpr, B: tl.constexpr):
    """Write the distances of the union of clusters a and b, a < b, in the places of b.

    Clusters below b that are now nearest to it know it; those whose nearest was one of the two get NOBODY.
    """
    for j0 in range(0, n, B):
        j = j0 + tl.arange(0, B)
        alive = (j < n) & (j != a) & (j != b)
        alive = alive & (tl.load(sizes + j, mask=alive, other=0) > 0)
        x = tl.load(matrix + a.to(tl.int64) * n + j, mask=alive, other=0)
        y = tl.load(matrix + b.to(tl.int64) * n + j, mask=alive, other=0)
        height = combined(x, y, na.to(tl.float64), nb.to(tl.float64), METHOD)
        tl.store(matrix + b.to(tl.int64) * n + j, height, mask=alive)
        tl.store(matrix + j.to(tl.int64) * n + b, height, mask=alive)
        below = alive & (j < b)
        near = tl.load(nearest + j, mask=below, other=-1)
        low = tl.load(least + j, mask=below, other=0)
        again = below & ((near == a) | (near == b))
        nearer = below & (again == 0) & ((height < low) | ((height == low) & (b < near)))
        tl.store(least + j, height, mask=nearer)
        tl.store(nearest + j, tl.where(again, NOBODY, b), mask=nearer | again)


@triton.jit
def square_kernel(
    matrix,  # float64 [problems, n, n]: of kernels/pairwise.py, as are the next two; changed
    least,  # float64 [problems, n]
    nearest,  # int32 [problems, n]
    exponents,  # int64 [problems]: heights are to be multiplied by 2 to this power
    sizes,  # int32 [problems, n]: scratch, as is
    reached,  # float64 [problems, n]: the heights of the clusters' own merges
    links,  # int32 [problems, 3, n]: see Trees of kernels/linkage.py
    heights,  # float64 [problems, n]
    n,
    METHOD: tl.constexpr,
    B: tl.constexpr,
):
    pid = tl.program_id(0).to(tl.int64)
    matrix += pid * n * n
    least += pid * n
    nearest += pid * n
    sizes += pid * n
    reached += pid * n
    parents = links + 3 * pid * n
    heights += pid * n
    exponent = tl.load(exponents + pid)
    for p0 in range(0, n, B):
        p = p0 + tl.arange(0, B)
        tl.store(sizes + p, tl.full((B,), 1, tl.int32), mask=p < n)
        tl.store(reached + p, tl.zeros((B,), tl.float64), mask=p < n)
        tl.store(heights + p, tl.full((B,), float("inf"), tl.float64), mask=p < n)
        tl.store(parents + p, p, mask=p < n)
    tl.debug_barrier()
    for done in range(n - 1):
        low, a = lowest(least, n, B)
        b = tl.load(nearest + a)
        low = tl.maximum(low, tl.maximum(tl.load(reached + a), tl.load(reached + b)))
        na = tl.load(sizes + a)
        nb = tl.load(sizes + b)
        tl.debug_barrier()
        unite(matrix, sizes, least, nearest, a, b, na, nb, n, METHOD, B)
        tl.debug_barrier()
        tl.store(sizes + a, 0)
        tl.store(sizes + b, na + nb)
        tl.store(reached + b, low)
        tl.store(least + a, float("inf"))
        tl.store(parents + a, b)
        tl.store(parents + n + a, na + nb)
        tl.store(parents + 2 * n + a, done)
        tl.store(heights + a, scaled(low, exponent))
        tl.debug_barrier()
        look(matrix, sizes, least, nearest, b, n, B)
        for j0 in range(0, b, B):
            j = j0 + tl.arange(0, B)
            alive = (j < b) & (j != a)
            alive = alive & (tl.load(sizes + j, mask=alive, other=0) > 0)
            again = alive & (tl.load(nearest + j, mask=alive, other=0) == NOBODY)
            waiting = tl.where(again, j, NOBODY)
            p = tl.min(waiting, 0)
            if p < NOBODY:
                tl.debug_barrier()  # all have read `nearest`
            while p < NOBODY:
                look(matrix, sizes, least, nearest, p, n, B)
                p = tl.min(tl.where(waiting > p, waiting, NOBODY), 0)
        tl.debug_barrier()


def link(points: Tensor, method: str, scratch: int = SCRATCH) -> Tensor:
    """Return scipy's Z, float64 [B, n-1, 4], of points [B, n, d]: float32 or float64, finite, any strides.

    As many problems at a time as have matrices that fit `scratch` bytes, but at least one. Nothing waits.
    """
    B, n, _ = points.shape
    if B == 0 or n == 1:
        return torch.empty((B, n - 1, 4), dtype=torch.float64, device=points.device)
    return torch.cat([_linked(part, method) for part in torch.split(points, max(1, scratch // (8 * n * n)))])


def _linked(points: Tensor, method: str) -> Tensor:
    (B, n, _), device = points.shape, points.device
    found = distances(points)
    sizes = torch.empty((B, n), dtype=torch.int32, device=device)
    trees = Trees(
        [n],
        [B],
        torch.empty((B * n, 3), dtype=torch.int32, device=device),
        torch.empty(B * n, dtype=torch.float64, device=device),
    )
    with device_guard(device):
        square_kernel[B,](
            found.matrix,
            found.least,
            found.nearest,
            found.exponents,
            sizes,
            torch.empty((B, n), dtype=torch.float64, device=device),
            trees.links,
            trees.heights,
            n,
            METHOD=METHODS.index(method),
            **EXACT,
            **square_tile(n, chip_of(device)),
        )
    return dendrograms(trees)
