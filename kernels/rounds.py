# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
"""Ward linkage in rounds: every round merges all clusters that are each other's nearest.

Ward is reducible: no cluster comes nearer to a third one by merging than its nearer part was, so pairs of
reciprocal nearest neighbours may merge in any order, and a cluster whose nearest neighbour was not touched
keeps it. One program per problem; clusters are centroids and sizes, and there is no n x n matrix.

Equal distances go to the neighbour j of i with the smallest ``i ^ j``, which is symmetric, so that among the
nearest pairs one is always reciprocal. Rounding may spoil that for neighbours kept from earlier rounds; then
all look again.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

SCRATCH = 256 * 2**20
"""Bytes of scratch, at most; more problems than fit go in turns."""


@triton.jit  # type: ignore[untyped-decorator]
def ward_kernel(
    centre,  # [B, d, n] the points, then the centroids
    size,  # [B, n] ones, then the sizes, 0 once absorbed
    nearest,  # int32 [B, n]
    cost,  # [B, n] half the square of the height of a merge with its nearest; if absorbed, the size
    touched,  # int32 [B, n] zeros, then the last round in which the cluster merged
    parent,  # int32 [B, n] out
    height,  # [B, n] zeros, then of a cluster alive its last height, of one absorbed that of this merge
    alive,  # int32 [B, n] 0 .. n-1, then the clusters that are left, ascending
    queue,  # int32 [B, n] 0 .. n-1, then those of them that look for their nearest
    n,
    D: tl.constexpr,
    BI: tl.constexpr,  # rows and columns of a tile of distances
    BJ: tl.constexpr,
    BM: tl.constexpr,  # clusters at a time elsewhere
):
    offset = tl.program_id(0).to(tl.int64) * n
    centre += offset * D
    size += offset
    nearest += offset
    cost += offset
    touched += offset
    parent += offset
    height += offset
    alive += offset
    queue += offset
    rows = tl.arange(0, BI)
    columns = tl.arange(0, BJ)
    members = tl.arange(0, BM)
    left = n
    waiting = n
    turn = 1
    while left > 1:
        for start in range(0, waiting, BI):
            asked = start + rows < waiting
            i = tl.load(queue + start + rows, mask=asked, other=0)
            own = tl.load(size + i, mask=asked, other=1.0)
            best = tl.full([BI], float("inf"), own.dtype)
            best_xor = tl.full([BI], 2147483647, tl.int32)
            for first in range(0, left, BJ):
                within = first + columns < left
                j = tl.load(alive + first + columns, mask=within, other=0)
                theirs = tl.load(size + j, mask=within, other=1.0)
                square = tl.zeros([BI, BJ], own.dtype)
                if D <= 32:
                    for k in tl.static_range(D):
                        a = tl.load(centre + k * n + i)
                        b = tl.load(centre + k * n + j)
                        gap = a[:, None] - b[None, :]
                        square += gap * gap
                else:
                    for k in range(D):
                        a = tl.load(centre + k * n + i)
                        b = tl.load(centre + k * n + j)
                        gap = a[:, None] - b[None, :]
                        square += gap * gap
                value = square * (own[:, None] * theirs[None, :] / (own[:, None] + theirs[None, :]))
                other = within[None, :] & (i[:, None] != j[None, :])
                value = tl.where(other, value, float("inf"))
                least = tl.min(value, axis=1)
                tied = other & (value == least[:, None])
                xor = tl.min(tl.where(tied, i[:, None] ^ j[None, :], 2147483647), axis=1)
                better = (least < best) | ((least == best) & (xor < best_xor))
                best = tl.where(better, least, best)
                best_xor = tl.where(better, xor, best_xor)
            tl.store(nearest + i, best_xor ^ i, mask=asked)
            tl.store(cost + i, best, mask=asked)
        tl.debug_barrier()
        pairs = 0
        for start in range(0, left, BM):  # pairs are disjoint: what one lane changes, no other needs
            inside = start + members < left
            i = tl.load(alive + start + members, mask=inside, other=0)
            j = tl.load(nearest + i, mask=inside, other=0)
            mutual = inside & (tl.load(nearest + j, mask=inside, other=-1) == i) & (i < j)
            own = tl.load(size + i, mask=mutual, other=1.0)
            theirs = tl.load(size + j, mask=mutual, other=1.0)
            share = theirs / (own + theirs)
            # rounding must not put a merge below one of its parts
            top = tl.sqrt(2 * tl.load(cost + i, mask=mutual, other=0.0))
            top = tl.maximum(top, tl.load(height + i, mask=mutual, other=0.0))
            top = tl.maximum(top, tl.load(height + j, mask=mutual, other=0.0))
            now = tl.zeros([BM], tl.int32) + turn
            pairs += tl.sum(mutual.to(tl.int32))
            for k in range(D):
                a = tl.load(centre + k * n + i, mask=mutual, other=0.0)
                b = tl.load(centre + k * n + j, mask=mutual, other=0.0)
                tl.debug_barrier()  # several threads may load an element that one of them stores
                tl.store(centre + k * n + i, a + share * (b - a), mask=mutual)
            tl.store(size + i, own + theirs, mask=mutual)
            tl.store(size + j, tl.zeros([BM], own.dtype), mask=mutual)
            tl.store(touched + i, now, mask=mutual)
            tl.store(touched + j, now, mask=mutual)
            tl.store(parent + j, i, mask=mutual)
            tl.store(height + i, top, mask=mutual)
            tl.store(height + j, top, mask=mutual)
            tl.store(cost + j, own + theirs, mask=mutual)
        tl.debug_barrier()
        survivors = 0
        waiting = 0
        for start in range(0, left, BM):  # to the front, so never onto what is still to be read
            inside = start + members < left
            i = tl.load(alive + start + members, mask=inside, other=0)
            stays = inside & (tl.load(size + i, mask=inside, other=0.0) > 0)
            near = tl.load(nearest + i, mask=inside, other=0)
            asks = tl.load(touched + i, mask=inside, other=0) == turn
            asks = asks | (tl.load(touched + near, mask=inside, other=0) == turn)
            asks = stays & (asks | (pairs == 0))
            tl.debug_barrier()
            count = stays.to(tl.int32)
            tl.store(alive + survivors + tl.cumsum(count, axis=0) - 1, i, mask=stays)
            survivors += tl.sum(count)
            count = asks.to(tl.int32)
            tl.store(queue + waiting + tl.cumsum(count, axis=0) - 1, i, mask=asks)
            waiting += tl.sum(count)
        tl.debug_barrier()
        left = survivors
        turn += 1


@dataclass(frozen=True, eq=False)
class Merges:
    """All merges of B problems of n points.

    Point j is absorbed, with all that it absorbed before, by the smaller index ``parent[j]``. Point 0 stays
    to the end: its parent is itself, at infinity.
    """

    parent: Tensor
    """int32 [B, n]"""
    height: Tensor
    """[B, n], scipy's, in the precision of the points; never below an earlier merge of either part."""
    turn: Tensor
    """int32 [B, n]: the round of the merge, later than those of its parts."""
    size: Tensor
    """[B, n]: the points of the merged cluster."""

    def split(self, sizes: list[int]) -> list[Merges]:
        """The problems in groups, one after the other."""
        parts = (torch.split(field, sizes) for field in (self.parent, self.height, self.turn, self.size))
        return [Merges(*fields) for fields in zip(*parts, strict=True)]


HALF_RATE = ((8, 0), (9, 0), (10, 0))
"""Compute capabilities of chips with float64 at half the rate of float32: A100, H100, B200."""


def precise(points: Tensor) -> Tensor:
    """float64 where that costs little, or is what came; else float32, with heights to about 1e-6 of the
    largest and the other side of nearly equal merges possible."""
    fast = points.device.type == "cpu" or torch.cuda.get_device_capability(points.device) in HALF_RATE
    return points.double() if fast else points


def ward(points: Tensor) -> Merges:
    """Points [B, n, d], float32 or float64, finite, whose dtype is the precision of all that follows.

    One launch, unless there are more problems than fit into :data:`SCRATCH`. Nothing waits for the device.
    """
    B, n, d = points.shape
    parent = torch.arange(n, dtype=torch.int32, device=points.device).repeat(B, 1)
    turn = torch.zeros_like(parent)
    height = torch.zeros((B, n), dtype=points.dtype, device=points.device)
    size = torch.zeros_like(height)
    most = max(1, SCRATCH // ((2 * d + 6) * n * points.element_size()))
    for start in range(0, B, most):
        part = slice(start, min(B, start + most))
        centre, unit = _normalized(points[part])
        sizes, nearest = torch.ones_like(height[part]), torch.zeros_like(parent[part])
        ids = torch.arange(n, dtype=torch.int32, device=points.device).repeat(2, len(sizes), 1)
        state = (centre, sizes, nearest, size[part], turn[part], parent[part], height[part], ids[0], ids[1])
        with torch.cuda.device(points.device) if points.is_cuda else nullcontext():
            # one warp needs the fewest instructions; more hide latency where there are few problems
            warps = 1 if len(sizes) >= 1024 else 4
            rows = 8 if points.is_cuda else 64  # the interpreter wants few large steps
            ward_kernel[(len(sizes),)](*state, n, D=d, BI=rows, BJ=64, BM=256, num_warps=warps)
        height[part] *= unit
    height[:, 0] = torch.inf
    return Merges(parent, height, turn, size)


def _normalized(points: Tensor) -> tuple[Tensor, Tensor]:
    """[B, d, n] less the mean and times a power of two, so that no square overflows or vanishes; and the
    factor [B, 1] to undo it."""
    first = _power_of_two(points)
    centre = points / first
    centre = centre - centre.mean(dim=1, keepdim=True)
    second = _power_of_two(centre)  # points far from 0 may be near to each other
    return (centre / second).transpose(1, 2).contiguous(), (first * second)[:, :, 0]


def _power_of_two(points: Tensor) -> Tensor:
    """[B, 1, 1] about the largest magnitude of every problem."""
    largest = points.abs().amax(dim=(1, 2), keepdim=True)
    part = 2 * torch.frexp(largest)[0]  # exact, and so is the quotient
    return torch.where(largest > 0, largest / part, 1.0)
