# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""Link points on a line by Ward, one problem per program: only neighbours merge.

After sorting, equal points are one cluster from the start. A round computes the cost of every gap between
neighbours and merges all pairs whose gap is lower than those on both sides, as csrc/ward/line.cpp does: in
float64, by its formulas, and where gaps side by side are about the same, by heights and ids. Rounding
cannot make the order of merges matter there, if it is no more than a merge takes the next cluster away; where
it may be more, the problem is flagged, and kernels/rule.py does it.

Scratch: `totals` float64 [n] and `gaps` float64 [n + 3], of clusters from left to right, gap i being to the
left of cluster i; in `words` int32 [n] each: sizes, ids, and what a cluster does.
"""

import triton
import triton.language as tl

from .cut import kth
from .place import MODERATE, NARROW, offset_of
from .problem import MERGES, ORDER, ROOM, TABLE, part_of, places_of, source_of
from .state import REALS, WORDS, exponent_of
from .ward import DONE, FLAG, LEFT, STATUS, begin_tree

ABOVE = tl.constexpr(1 + 2.0**-30)  # times a cost: surely more
BLUR = tl.constexpr(2.0**-34)
SHARE = tl.constexpr(2.0**-26)


@triton.jit
def start(source, step, order, totals, sizes, ids, marks, parents, heights, n, B: tl.constexpr):
    """Make clusters of equal points, each merged into the next.

    Returns how many, the largest distance to the origin, and whether squares might overflow or vanish.
    """
    lane = tl.arange(0, B)
    count = 0
    least = tl.full((B,), float("inf"), tl.float64)
    for p0 in range(0, n, B):
        p = p0 + lane
        x = tl.load(source + tl.load(order + p, mask=p < n, other=0) * step).to(tl.float64)
        before = tl.load(source + tl.load(order + p - 1, mask=(p > 0) & (p < n), other=0) * step).to(
            tl.float64
        )
        first = ((p < n) & ((p == 0) | (x != before))).to(tl.int32)
        tl.store(marks + count + tl.cumsum(first, 0) - 1, p, mask=first != 0)
        count += tl.sum(first, 0)
        least = tl.minimum(least, tl.where((p < n) & (x != 0), tl.abs(x), float("inf")))
    low = tl.load(source + tl.load(order) * step).to(tl.float64)
    high = tl.load(source + tl.load(order + n - 1) * step).to(tl.float64)
    offset = offset_of(low, high)
    tl.debug_barrier()
    for c0 in range(0, count, B):
        c = c0 + lane
        inside = c < count
        begin = tl.load(marks + c, mask=inside, other=0)
        end = tl.load(marks + c + 1, mask=c + 1 < count, other=n)
        x = tl.load(source + tl.load(order + begin, mask=inside, other=0) * step).to(tl.float64) - offset
        tl.store(totals + c, (end - begin).to(tl.float64) * x, mask=inside)
        tl.store(sizes + c, end - begin, mask=inside)
        tl.store(ids + c, tl.load(order + end - 1, mask=inside, other=0).to(tl.int32), mask=inside)
    if count < n:
        seen = 0
        for p0 in range(0, n, B):
            p = p0 + lane
            inside = p < n
            own = tl.load(order + p, mask=inside, other=0)
            x = tl.load(source + own * step)
            before = tl.load(source + tl.load(order + p - 1, mask=(p > 0) & inside, other=0) * step)
            first = (inside & ((p == 0) | (x != before))).to(tl.int32)
            c = seen + tl.cumsum(first, 0) - 1
            seen += tl.sum(first, 0)
            following = tl.load(order + p + 1, mask=p + 1 < n, other=0)
            equal = (p + 1 < n) & (tl.load(source + following * step) == x)
            tl.store(parents + own, following.to(tl.int32), mask=equal)
            tl.store(parents + n + own, p - tl.load(marks + c, mask=equal, other=0) + 2, mask=equal)
            tl.store(heights + own, tl.zeros((B,), tl.float64), mask=equal)
    size = tl.maximum(-low, high)
    top = exponent_of(size)
    wide = (top > MODERATE) | (top < -MODERATE) | (top - exponent_of(tl.min(least, 0)) > NARROW)
    return count, tl.maximum(-(low - offset), high - offset), ((size > 0) & wide).to(tl.int32)


@triton.jit
def measure_gaps(totals, sizes, gaps, m, B: tl.constexpr):
    for p0 in range(0, m + 2, B):
        p = p0 + tl.arange(0, B)
        inside = (p > 0) & (p < m)
        a = tl.load(totals + p - 1, mask=inside, other=0)
        b = tl.load(totals + p, mask=inside, other=0)
        na = tl.load(sizes + p - 1, mask=inside, other=1).to(tl.float64)
        nb = tl.load(sizes + p, mask=inside, other=1).to(tl.float64)
        step = a * nb - b * na
        cost = step * step / (na * nb * (na + nb))
        tl.store(gaps + p, tl.where(inside, cost, float("inf")), mask=p < m + 2)


@triton.jit
def lower(gap, beside, sizes, ids, middle, other, near, asked, blur):
    """Tell whether `gap`, of clusters `middle` and `other`, is lower than `beside`, of `middle` and `near`.

    And whether that is sure, where it is `asked`.
    """
    shared = tl.load(sizes + middle, mask=asked, other=1)
    most = tl.maximum(tl.load(sizes + other, mask=asked, other=1), tl.load(sizes + near, mask=asked, other=1))
    share = 1.0 + tl.maximum(shared, most).to(tl.float64)
    share = share * share
    sure = gap > blur * shared.to(tl.float64) * share * share * SHARE
    height = tl.sqrt(2 * gap)
    height_beside = tl.sqrt(2 * beside)
    i = tl.load(ids + middle, mask=asked, other=0)
    j = tl.load(ids + other, mask=asked, other=0)
    k = tl.load(ids + near, mask=asked, other=0)
    first = tl.minimum(i, j)
    first_beside = tl.minimum(i, k)
    by_id = (first < first_beside) | ((first == first_beside) & (tl.maximum(i, j) < tl.maximum(i, k)))
    return tl.where(height == height_beside, by_id, height < height_beside), sure


@triton.jit
def choose(sizes, ids, gaps, marks, m, blur, B: tl.constexpr):
    """Mark clusters that merge with the next. Returns how many decisions are not sure."""
    unsure = 0
    for p0 in range(0, m, B):
        p = p0 + tl.arange(0, B)
        valid = p + 1 < m
        gap = tl.load(gaps + p + 1, mask=valid, other=float("inf"))
        left = tl.load(gaps + p, mask=valid, other=float("inf"))
        right = tl.load(gaps + p + 2, mask=valid, other=float("inf"))
        size = tl.load(sizes + p, mask=valid, other=1).to(tl.float64)
        next_size = tl.load(sizes + p + 1, mask=valid, other=1).to(tl.float64)
        near_left = valid & (tl.minimum(gap, left) * ABOVE + blur * size >= tl.maximum(gap, left))
        near_right = valid & (tl.minimum(gap, right) * ABOVE + blur * next_size >= tl.maximum(gap, right))
        below_left = gap < left
        below_right = gap < right
        if tl.max((near_left | near_right).to(tl.int32), 0) > 0:
            answer, sure = lower(gap, left, sizes, ids, p, p + 1, p - 1, near_left, blur)
            below_left = tl.where(near_left, answer, below_left)
            unsure += tl.sum((near_left & (sure == 0)).to(tl.int32), 0)
            answer, sure = lower(gap, right, sizes, ids, p + 1, p, p + 2, near_right, blur)
            below_right = tl.where(near_right, answer, below_right)
            unsure += tl.sum((near_right & below_left & (sure == 0)).to(tl.int32), 0)
        tl.store(marks + p, (valid & below_left & below_right).to(tl.int32), mask=p < m)
    return unsure


@triton.jit
def merge_line(totals, sizes, ids, gaps, marks, parents, heights, n, m, B: tl.constexpr):
    """Merge the marked pairs and close the gaps: blocks are read before they are overwritten.

    Returns the clusters left.
    """
    left = 0
    for p0 in range(0, m, B):
        p = p0 + tl.arange(0, B)
        inside = p < m
        grown = tl.load(marks + p, mask=inside, other=0) != 0
        gone = tl.load(marks + p - 1, mask=inside & (p > 0), other=0) != 0
        alive = inside & (gone == 0)
        total = tl.load(totals + p, mask=alive, other=0)
        size = tl.load(sizes + p, mask=alive, other=0)
        id = tl.load(ids + p, mask=alive, other=0)
        total += tl.load(totals + p + 1, mask=grown, other=0)
        size += tl.load(sizes + p + 1, mask=grown, other=0)
        other = tl.load(ids + p + 1, mask=grown, other=0)
        height = tl.sqrt(2 * tl.load(gaps + p + 1, mask=grown, other=0))
        to = left + tl.cumsum(alive.to(tl.int32), 0) - 1
        left += tl.sum(alive.to(tl.int32), 0)
        tl.debug_barrier()
        lost = tl.minimum(id, other)
        kept = tl.maximum(id, other)
        tl.store(parents + lost, kept, mask=grown)
        tl.store(parents + n + lost, size, mask=grown)
        tl.store(heights + lost, height, mask=grown)
        tl.store(parents + 2 * n + lost, n + lost, mask=grown & (height == 0))  # behind those of equal points
        tl.store(totals + to, total, mask=alive)
        tl.store(sizes + to, size, mask=alive)
        tl.store(ids + to, tl.where(grown, kept, id), mask=alive)
    return left


@triton.jit(do_not_specialize=["first"], do_not_specialize_on_alignment=range(3))
def spread_kernel(
    parts,
    programs,
    numbers,  # float32 or float64, as the points, [room] for each program
    first,
    DOUBLE: tl.constexpr,
    B: tl.constexpr,
):
    """Write the points of a problem side by side, to be sorted, and infinities behind them."""
    part, k, n = part_of(parts, programs, first + tl.program_id(0))
    source, step, _ = source_of(part, k, DOUBLE)
    room = tl.load(part + ROOM).to(tl.int32)
    numbers = numbers.to(tl.pointer_type(tl.float64 if DOUBLE else tl.float32))
    numbers += tl.load(part + ORDER) + k * room
    for p0 in range(0, room, B):
        p = p0 + tl.arange(0, B)
        x = tl.load(source + p * step, mask=p < n, other=float("inf"))
        x = tl.where(x == 0, 0.0, x)  # no negative zero: it would come before others
        tl.store(numbers + p, x, mask=p < room)


# arguments as those of kernels/ward.py, and the order of the points of each problem
@triton.jit(do_not_specialize=["first", "phase"], do_not_specialize_on_alignment=range(11))
def line_kernel(
    parts,
    programs,
    points,
    state,
    sums,
    status,
    scales,
    links,
    heights,
    cuts,
    orders,  # int64 [room] for each program
    first,
    phase,
    DOUBLE: tl.constexpr,
    D: tl.constexpr,
    B: tl.constexpr,
):
    pid = tl.program_id(0)
    part, k, n = part_of(parts, programs, first + pid)
    begin, position, total = places_of(part, k, n)
    merges = tl.load(part + MERGES).to(tl.int32)
    gaps = (points + position * (D + REALS)).to(tl.pointer_type(tl.float64))
    sizes = state + position * WORDS
    ids = sizes + n
    marks = ids + n
    totals = sums + total * D
    parents = links + 3 * begin
    heights += begin
    status += STATUS * pid
    source, step, _ = source_of(part, k, DOUBLE)
    order = orders + tl.load(part + ORDER) + k * tl.load(part + ROOM)
    begin_tree(parents, heights, n, 0, B)  # there is a barrier before the first merges
    m, furthest, flag = start(source, step, order, totals, sizes, ids, marks, parents, heights, n, B)
    if not DOUBLE:
        flag = 0
    tl.debug_barrier()
    blur = furthest * n * BLUR
    blur = blur * blur
    while (m > 1) & (flag == 0):
        measure_gaps(totals, sizes, gaps, m, B)
        tl.debug_barrier()
        unsure = choose(sizes, ids, gaps, marks, m, blur, B)
        tl.debug_barrier()
        if unsure > 0:
            flag = 1
        else:
            m = merge_line(totals, sizes, ids, gaps, marks, parents, heights, n, m, B)
        tl.debug_barrier()
    if (merges > 0) & (flag == 0):
        tl.atomic_max(cuts + tl.load(part + TABLE), kth(heights, n, merges, 63, B), sem="relaxed")
    tl.store(status + LEFT, m)
    tl.store(status + DONE, n - m)
    tl.store(status + FLAG, flag)
