"""What a GPU can do at most, measured, and what clustering asks of it, counted."""

import numpy as np
import torch
import triton
import triton.language as tl

CHAINS = 8  # independent sums per thread, to hide the latency of a multiply-add
ROUNDS = 20_000
BLOCK = 1024


@triton.jit
def multiply_add(out, factor, rounds, BLOCK: tl.constexpr):
    """Eight chains of multiply-adds in every lane."""
    lanes = tl.arange(0, BLOCK)
    a0 = lanes.to(tl.float32)
    a1, a2, a3, a4, a5, a6, a7 = a0 + 1, a0 + 2, a0 + 3, a0 + 4, a0 + 5, a0 + 6, a0 + 7
    for _ in range(rounds):
        a0 = a0 * factor + 1.0
        a1 = a1 * factor + 1.0
        a2 = a2 * factor + 1.0
        a3 = a3 * factor + 1.0
        a4 = a4 * factor + 1.0
        a5 = a5 * factor + 1.0
        a6 = a6 * factor + 1.0
        a7 = a7 * factor + 1.0
    tl.store(out + tl.program_id(0) * BLOCK + lanes, a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7)


def multiply_adds_per_second():
    """float32, outside of the tensor cores; the best of five launches that fill the chip."""
    programs = 4 * torch.cuda.get_device_properties().multi_processor_count
    out = torch.empty(programs * BLOCK, device="cuda")
    took = []
    for _ in range(6):
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        multiply_add[(programs,)](out, 0.5, ROUNDS, BLOCK=BLOCK, num_warps=4)
        after.record()
        after.synchronize()
        took.append(before.elapsed_time(after) / 1000)
    return programs * BLOCK * CHAINS * ROUNDS / min(took[1:])


def pair_evaluations(points, merges):
    """How many distances Ward in rounds of reciprocal nearest neighbours evaluates for points [n, d].

    Each round merges all pairs that are each other's nearest, and only clusters that are new, or whose
    nearest one is gone, look for their nearest again, among all; it ends after `merges` merges or more.
    """
    centre, size = np.array(points, np.float64), np.ones(len(points))
    alive = np.arange(len(points))
    nearest = np.full(len(points), -1)
    stale, count, left = alive, 0, len(points) - merges
    while len(alive) > max(left, 1):
        count += len(stale) * len(alive)
        for i in stale:
            cost = ((centre[alive] - centre[i]) ** 2).sum(axis=1) * size[alive] / (size[alive] + size[i])
            cost[alive == i] = np.inf
            tied = alive[cost == cost.min()]
            nearest[i] = tied[np.argmin(tied ^ i)]
        kept = [i for i in alive if i < nearest[i] and nearest[nearest[i]] == i]
        gone = nearest[kept]
        for a, b in zip(kept, gone, strict=True):
            centre[a] += size[b] / (size[a] + size[b]) * (centre[b] - centre[a])
            size[a] += size[b]
        alive = np.setdiff1d(alive, gone)
        stale = alive[np.isin(alive, kept) | np.isin(nearest[alive], [*kept, *gone])]
    return count


def operations_per_pair(d):
    """float32 instructions for one distance: d differences, d multiply-adds, and 3 for the sizes and the
    comparison."""
    return 2 * d + 3
