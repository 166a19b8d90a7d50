# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""Find the height of a problem's k-th merge, and label its clusters below the cut of its layer."""

import triton
import triton.language as tl

from .problem import BEGIN, NUMBER, TABLE, part_of


@triton.jit
def kth(heights, n, k, BITS: tl.constexpr, B: tl.constexpr):
    """Return the bits of the k-th smallest of float64 heights [n], none negative.

    All but the first BITS of 63 are zero.
    The bits of such numbers are ordered as the numbers are, so it is found bit by bit: the largest number
    with fewer than k below it.
    """
    found = tl.zeros((), tl.int64)
    bit = tl.full((), 1 << 62, tl.int64)
    whole = heights.to(tl.pointer_type(tl.int64))
    for _ in range(BITS):
        trial = found | bit
        below = tl.zeros((4 * B,), tl.int32)
        for p0 in range(0, n, 4 * B):
            p = p0 + tl.arange(0, 4 * B)
            below += (tl.load(whole + p, mask=p < n, other=0x7FF0000000000000) < trial).to(tl.int32)
        if tl.sum(below, 0) < k:
            found = trial
        bit = bit >> 1
    return found


@triton.jit
def roots_of(start, to, n, B: tl.constexpr):
    """Follow the links [n] from `start` once for every point, into `to`. Returns how many moved.

    `start` and `to` are different, so that nobody reads what is written in the same step.
    """
    moved = 0
    for p0 in range(0, n, B):
        p = p0 + tl.arange(0, B)
        here = tl.load(start + p, mask=p < n, other=0)
        there = tl.load(start + here, mask=p < n, other=0)
        tl.store(to + p, there, mask=p < n)
        moved += tl.sum((there != here).to(tl.int32), 0)
    return moved


@triton.jit(do_not_specialize=["first"], do_not_specialize_on_alignment=range(7))
def label_kernel(
    parts,  # int64 [parts, 13] and
    programs,  # int32 [programs, 2]: as kernels/parts.py writes them
    links,  # int32 [3, n] each, as kernels/ward.py leaves them; overwritten
    heights,  # float64 [n] each
    cuts,  # int64 [tables]: bits of the heights
    labels,  # int32 [n] each
    clusters,  # int32 [problems], by number
    first,  # program of this launch
    B: tl.constexpr,
):
    """Write the labels [n] of a problem's points below its layer's cut, and how many there are.

    They are numbered by first appearance.
    A point's cluster is known by its highest point, which the links lead to. All points go twice as far along
    them in every step. Then the lowest of the points that have come to one is found, and these are counted.
    """
    part, k, n = part_of(parts, programs, first + tl.program_id(0))
    begin = tl.load(part + BEGIN) + k * n
    parents = links + 3 * begin
    spare = parents + n
    numbers = parents + 2 * n
    heights += begin
    labels += begin
    cut = tl.load(cuts + tl.load(part + TABLE)).to(tl.float64, bitcast=True)
    lane = tl.arange(0, B)
    for p0 in range(0, n, B):
        p = p0 + lane
        climbs = tl.load(heights + p, mask=p < n, other=float("inf")) <= cut
        tl.store(labels + p, tl.where(climbs, tl.load(parents + p, mask=climbs, other=0), p), mask=p < n)
    tl.debug_barrier()
    moved = 1
    while moved > 0:
        roots_of(labels, spare, n, B)
        tl.debug_barrier()
        moved = roots_of(spare, labels, n, B)
        tl.debug_barrier()
    for p0 in range(0, n, B):
        p = p0 + lane
        tl.store(spare + p, tl.full((B,), 0x7FFFFFFF, tl.int32), mask=p < n)
    tl.debug_barrier()
    for p0 in range(0, n, B):
        p = p0 + lane
        root = tl.load(labels + p, mask=p < n, other=0)
        tl.atomic_min(spare + root, p, mask=p < n, sem="relaxed")
    tl.debug_barrier()
    count = 0
    for p0 in range(0, n, B):
        p = p0 + lane
        root = tl.load(labels + p, mask=p < n, other=0)
        lowest = ((p < n) & (tl.load(spare + root, mask=p < n, other=-1) == p)).to(tl.int32)
        tl.store(numbers + root, count + tl.cumsum(lowest, 0) - 1, mask=lowest != 0)
        count += tl.sum(lowest, 0)
    tl.store(clusters + tl.load(part + NUMBER) + k, count)
    tl.debug_barrier()
    for p0 in range(0, n, B):
        p = p0 + lane
        root = tl.load(labels + p, mask=p < n, other=0)
        tl.store(labels + p, tl.load(numbers + root, mask=p < n, other=0), mask=p < n)
