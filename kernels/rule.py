# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""Do Ward's linkage as the rule reads, for problems in which rounding decides: slow, and the same everywhere.

One program per problem; it ends at once unless the problem is flagged. Every cluster knows its nearest among
those of larger ids, so the lowest pair is found in time O(n), and after a merge only those look again whose
nearest took part in it, as csrc/linkage/greedy.hpp does. Points are scaled, and every height is computed, as
reprune/clustering/reference/linkage.py says, so no square overflows or vanishes.

Scratch is what kernels/ward.py has for the problem: `reals` holds the heights of the nearest and of the
clusters' own merges (float64 [n] each), `words` the nearest, the sizes and, on a line, the points before
each (int32 [n] each).
"""

import triton
import triton.language as tl

from .cut import kth
from .place import offset_of
from .problem import MERGES, TABLE, part_of, places_of, source_of
from .state import NOBODY, REALS, WORDS, exponent_of, power_of_two
from .ward import DONE, DOWN, FLAG, ON, OWN, SCALES, STATUS

TOP = tl.constexpr(900)  # exponent of the largest number, as reprune/clustering/reference/scale.py has it


@triton.jit
def scaled(x, exponent):
    """X 2^exponent, float64, rounded once: exponent from -2000 to 2000."""
    once = tl.abs(exponent) <= 1000
    half = exponent >> 1
    x = x * power_of_two(tl.where(once, exponent, half))
    return x * power_of_two(tl.where(once, 0, exponent - half))


@triton.jit
def true_exponent(x):
    """E of float64 x > 0 in [2^(e-1), 2^e), also where x is less than 2^-1022."""
    small = x < power_of_two(tl.full((), -1000, tl.int64))
    lifted = exponent_of(tl.where(small, x * power_of_two(tl.full((), 200, tl.int64)), x))
    return tl.where(x > 0, tl.where(small, lifted - 200, lifted), 0)


@triton.jit
def place_scaled(source, totals, n, next_point, next_coordinate, D: tl.constexpr, B: tl.constexpr):
    """Write points [n, D] to `totals`, the largest number brought to 2^900, less an offset.

    Returns the exponent that undoes it.
    """
    lane = tl.arange(0, B)
    size = tl.zeros((B,), tl.float64)
    for c in range(D):
        for p0 in range(0, n, B):
            p = p0 + lane
            x = tl.load(source + p * next_point + c * next_coordinate, mask=p < n, other=0).to(tl.float64)
            size = tl.maximum(size, tl.abs(x))
    exponent = true_exponent(tl.max(size, 0)) - TOP
    for c in range(D):
        low = tl.full((B,), float("inf"), tl.float64)
        high = tl.full((B,), float("-inf"), tl.float64)
        for p0 in range(0, n, B):
            p = p0 + lane
            x = tl.load(source + p * next_point + c * next_coordinate, mask=p < n, other=0).to(tl.float64)
            x = scaled(x, -exponent)
            low = tl.minimum(low, tl.where(p < n, x, float("inf")))
            high = tl.maximum(high, tl.where(p < n, x, float("-inf")))
        offset = offset_of(tl.min(low, 0), tl.max(high, 0))
        for p0 in range(0, n, B):
            p = p0 + lane
            x = tl.load(source + p * next_point + c * next_coordinate, mask=p < n, other=0).to(tl.float64)
            tl.store(totals + p * D + c, scaled(x, -exponent) - offset, mask=p < n)
    return exponent


@triton.jit
def heights_of(totals, sizes, i, j, mask, D: tl.constexpr, B: tl.constexpr):
    """Compute the heights of the merges of cluster i with clusters j [B].

    Each pair has a power of two of its own.
    """
    na = tl.load(sizes + i).to(tl.float64)
    nb = tl.load(sizes + j, mask=mask, other=1).to(tl.float64)
    largest = tl.zeros((B,), tl.float64)
    for c in range(D):
        step = tl.load(totals + i * D + c) * nb - tl.load(totals + j * D + c, mask=mask, other=0) * na
        largest = tl.maximum(largest, tl.abs(step))
    exponent = exponent_of(largest)
    down = power_of_two(tl.minimum(-exponent, 1022))
    squares = tl.zeros((B,), tl.float64)
    for c in range(D):
        step = tl.load(totals + i * D + c) * nb - tl.load(totals + j * D + c, mask=mask, other=0) * na
        step = step * down
        squares = squares + step * step
    return tl.sqrt(2 * (squares / (na * nb * (na + nb)))) * power_of_two(tl.maximum(exponent, -1022))


@triton.jit
def side_by_side(sizes, n, i, j, mask):
    """Return which clusters j [B] on a line lie beside cluster i; see :func:`rank`."""
    left, right = tl.load(sizes + n + i), tl.load(sizes + n + j, mask=mask, other=0)
    return (left + tl.load(sizes + i) == right) | (right + tl.load(sizes + j, mask=mask, other=0) == left)


@triton.jit(noinline=True)
def look(totals, sizes, least, nearest, i, n, D: tl.constexpr, B: tl.constexpr):
    """Find the nearest of those above cluster i, the first of equally near ones."""
    lane = tl.arange(0, B)
    best = tl.full((B,), float("inf"), tl.float64)
    which = tl.full((B,), NOBODY, tl.int32)
    for j0 in range((i + 1) // B * B, n, B):
        j = j0 + lane
        alive = (j > i) & (j < n)
        alive = alive & (tl.load(sizes + j, mask=alive, other=0) > 0)
        if D == 1:
            alive = alive & side_by_side(sizes, n, i, j, alive)
        height = tl.where(alive, heights_of(totals, sizes, i, j, alive, D, B), float("inf"))
        better = height < best
        best = tl.where(better, height, best)
        which = tl.where(better, j, which)
    low = tl.min(best, 0)
    tl.store(least + i, low)
    tl.store(nearest + i, tl.min(tl.where(best == low, which, NOBODY), 0))


@triton.jit
def offer(totals, sizes, least, nearest, a, b, n, D: tl.constexpr, B: tl.constexpr):
    """Offer cluster b, which took in a, to all below it.

    Those look again whose nearest was one of the two.
    """
    lane = tl.arange(0, B)
    for i0 in range(0, b, B):
        i = i0 + lane
        alive = i < b
        alive = alive & (tl.load(sizes + i, mask=alive, other=0) > 0)
        near = tl.load(nearest + i, mask=alive, other=-1)
        low = tl.load(least + i, mask=alive, other=0)
        height = heights_of(totals, sizes, b, i, alive, D, B)
        again = alive & ((near == a) | (near == b))
        if D == 1:
            alive = alive & side_by_side(sizes, n, b, i, alive)
        nearer = alive & (again == 0) & ((height < low) | ((height == low) & (b < near)))
        tl.store(least + i, height, mask=nearer)
        tl.store(nearest + i, tl.full((B,), 0, tl.int32) + b, mask=nearer)
        waiting = tl.where(again, i, NOBODY)
        p = tl.min(waiting, 0)
        while p < NOBODY:
            look(totals, sizes, least, nearest, p, n, D, B)
            p = tl.min(tl.where(waiting > p, waiting, NOBODY), 0)


@triton.jit(noinline=True)
def rank(points, sizes, n, B: tl.constexpr):
    """Count the points before each on a line, where only neighbours merge: int32 [n] behind the sizes."""
    lane = tl.arange(0, B)
    for i in range(n):
        before = tl.zeros((B,), tl.int32)
        for j0 in range(0, n, B):
            j = j0 + lane
            before += (tl.load(points + j, mask=j < n, other=float("inf")) < tl.load(points + i)).to(tl.int32)
        tl.store(sizes + n + i, tl.sum(before, 0))


@triton.jit(noinline=True)
def merge_equal(totals, sizes, following, parents, heights, n, D: tl.constexpr, B: tl.constexpr):
    """Merge equal points, each into the next, before others do; rounding may join those at height 0, too.

    Returns how many merges that are. `following` is scratch: int32 [n].
    """
    lane = tl.arange(0, B)
    for i in range(n):
        which = tl.full((B,), NOBODY, tl.int32)
        for j0 in range((i + 1) // B * B, n, B):
            j = j0 + lane
            same = (j > i) & (j < n)
            for c in range(D):
                same = same & (tl.load(totals + j * D + c, mask=same, other=0) == tl.load(totals + i * D + c))
            which = tl.minimum(which, tl.where(same, j, NOBODY))
        tl.store(following + i, tl.min(which, 0))
    tl.debug_barrier()
    done = 0
    for i in range(n):
        j = tl.load(following + i)
        if j < NOBODY:
            both = tl.load(sizes + i) + tl.load(sizes + j)
            tl.debug_barrier()
            tl.store(sizes + i, 0)
            tl.store(sizes + j, both)
            tl.store(parents + i, j)
            tl.store(parents + n + i, both)
            tl.store(parents + 2 * n + i, done)
            tl.store(heights + i, 0.0)
            tl.debug_barrier()
            done += 1
    for p0 in range(0, n, B):
        p = p0 + lane
        times = tl.load(sizes + p, mask=p < n, other=0).to(tl.float64)
        for c in range(D):
            x = tl.load(totals + p * D + c, mask=p < n, other=0)
            tl.store(totals + p * D + c, times * x, mask=p < n)
    tl.debug_barrier()
    return done


@triton.jit
def lowest(least, n, B: tl.constexpr):
    """Return the least height and the first place that has it."""
    best = tl.full((B,), float("inf"), tl.float64)
    which = tl.full((B,), NOBODY, tl.int32)
    for i0 in range(0, n, B):
        i = i0 + tl.arange(0, B)
        low = tl.load(least + i, mask=i < n, other=float("inf"))
        better = low < best
        best = tl.where(better, low, best)
        which = tl.where(better, i, which)
    low = tl.min(best, 0)
    return low, tl.min(tl.where(best == low, which, NOBODY), 0)


# arguments as those of kernels/ward.py
@triton.jit(do_not_specialize=["first", "phase"], do_not_specialize_on_alignment=range(10))
def rule_kernel(
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
    first,
    phase,
    DOUBLE: tl.constexpr,
    D: tl.constexpr,
    B: tl.constexpr,
):
    pid = tl.program_id(0)
    flag = tl.load(status + STATUS * pid + FLAG)
    part, k, n = part_of(parts, programs, first + pid)
    begin, position, total = places_of(part, k, n)
    least = (points + position * (D + REALS)).to(tl.pointer_type(tl.float64))
    reached = least + n
    nearest = state + position * WORDS
    sizes = nearest + n
    totals = sums + total * D
    parents = links + 3 * begin
    heights += begin
    table = tl.load(part + TABLE)
    lane = tl.arange(0, B)
    limit = tl.full((), float("inf"), tl.float64)
    if phase == ON:
        limit = tl.load(cuts + table).to(tl.float64, bitcast=True)
    done = 0
    most = n - 1
    if phase == OWN:
        most = tl.load(part + MERGES).to(tl.int32)
    exponent = tl.zeros((), tl.int64)
    if (flag == 1) & (phase == ON):
        done = tl.load(status + STATUS * pid + DONE)
        exponent = tl.load(scales + SCALES * pid + DOWN).to(tl.int64)
    elif flag != 0:
        source, next_point, next_coordinate = source_of(part, k, DOUBLE)
        exponent = place_scaled(source, totals, n, next_point, next_coordinate, D, B)
        for p0 in range(0, n, B):
            p = p0 + lane
            tl.store(heights + p, tl.full((B,), float("inf"), tl.float64), mask=p < n)
            tl.store(reached + p, tl.zeros((B,), tl.float64), mask=p < n)
            tl.store(sizes + p, tl.full((B,), 1, tl.int32), mask=p < n)
            tl.store(parents + p, p, mask=p < n)
            tl.store(least + p, tl.full((B,), float("inf"), tl.float64), mask=p < n)
        tl.debug_barrier()
        if D == 1:
            rank(totals, sizes, n, B)
        done = merge_equal(totals, sizes, nearest, parents, heights, n, D, B)
        for i in range(n):
            if tl.load(sizes + i) > 0:
                look(totals, sizes, least, nearest, i, n, D, B)
        tl.debug_barrier()
    go = (flag != 0).to(tl.int32)
    while (done < most) & (go != 0):
        low, a = lowest(least, n, B)
        b = tl.load(nearest + a)
        low = tl.maximum(low, tl.maximum(tl.load(reached + a), tl.load(reached + b)))
        height = scaled(low, exponent)
        na = tl.load(sizes + a)
        both = na + tl.load(sizes + b)
        if height > limit:
            go = 0
        else:
            tl.debug_barrier()
            for c0 in range(0, D, B):
                c = c0 + lane
                x = tl.load(totals + a * D + c, mask=c < D, other=0)
                y = tl.load(totals + b * D + c, mask=c < D, other=0)
                tl.store(totals + b * D + c, x + y, mask=c < D)
            if D == 1:
                left = tl.minimum(tl.load(sizes + n + a), tl.load(sizes + n + b))
                tl.debug_barrier()
                tl.store(sizes + n + b, left)
            tl.store(sizes + b, both)
            tl.store(sizes + a, 0)
            tl.store(reached + b, low)
            tl.store(least + a, float("inf"))
            tl.store(parents + a, b)
            tl.store(parents + n + a, both)
            tl.store(parents + 2 * n + a, done)
            tl.store(heights + a, height)
            tl.debug_barrier()
            look(totals, sizes, least, nearest, b, n, D, B)
            offer(totals, sizes, least, nearest, a, b, n, D, B)
            tl.debug_barrier()
            done += 1
    if (flag != 0) & (phase != ON):
        merges = tl.load(part + MERGES).to(tl.int32)
        if merges > 0:
            tl.atomic_max(cuts + table, kth(heights, n, merges, 63, B), sem="relaxed")
        tl.store(status + STATUS * pid + DONE, done)
        tl.store(scales + SCALES * pid + DOWN, exponent.to(tl.float64))
