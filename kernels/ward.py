# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
"""Ward linkage of one problem per program: rounds that merge all pairs of nearest neighbours at once.

Ward's cost is reducible, so merging every pair of clusters that are each other's nearest neighbour, in any
order, gives the dendrogram of the greedy algorithm (Bruynooghe 1977). A program keeps the centroids, sizes
and cached nearest neighbours of the clusters that are left at positions 0 .. m-1, and a round

1. evaluates the neighbours of stale clusters: those just merged, and those whose neighbour was;
2. merges the pairs: the cluster at the lower position becomes the union, in place;
3. closes the gaps. The order of positions stays, so a position may be read before it is overwritten.

A stale cluster's last cost bounds the next one from below, for nothing comes nearer. While that bound is
above the geometric mean of all costs the cluster is not evaluated again: it would hardly be merged, and be
stale again. The cheapest pair of all is always evaluated, so every round merges.

By reducibility a cached neighbour stays the nearest until it is merged itself, but for ties and rounding; if
no two clusters are each other's neighbour in a round, all become stale. Heights are at least those below.

Problems of one coordinate come sorted: there the nearest neighbour is at position p - 1 or p + 1 (`LINE`).

State of a problem, in tiles of C positions, so that one address serves all rows of a tile: `reals`
[P / C, D + 4, C]: D coordinates, size, 1 / size, cost of the nearest neighbour, height; `words`
[P / C, 5, C]: nearest neighbour (-1: stale), number of the cluster, its lowest point, mark, list of rows to
scan. Positions m .. of the last tile hold points far away, so that scans need no mask.
"""

import triton
import triton.language as tl

from .place import FAR, place_points
from .scan import at, gap, scan

WORDS = tl.constexpr(5)
REALS = 4  # besides the coordinates

NUMBER = tl.constexpr(1)  # rows of `words`; the nearest neighbour is row 0
LEAF = tl.constexpr(2)
MARK = tl.constexpr(3)
LIST = tl.constexpr(4)
GONE = tl.constexpr(-1)  # mark of a position that was merged into a lower one
SLOW = tl.constexpr(32)  # rows scanned for a merge: more, and ties are to blame


@triton.jit  # type: ignore[untyped-decorator]
def start(reals, words, order, n, D: tl.constexpr, C: tl.constexpr, LINE: tl.constexpr):
    """Every point a cluster of its own, and to be scanned; coordinates are there already."""
    zero = tl.zeros((C,), reals.dtype.element_ty)
    for p0 in range(0, n, C):
        p = p0 + tl.arange(0, C)
        own = reals + p0 * (D + 4) + tl.arange(0, C)
        tl.store(own + D * C, zero + 1)
        tl.store(own + (D + 1) * C, zero + 1)
        tl.store(own + (D + 2) * C, zero)
        tl.store(own + (D + 3) * C, zero)
        leaf = p
        if LINE:
            leaf = tl.load(order.to(tl.pointer_type(tl.int64)) + p, mask=p < n, other=0).to(tl.int32)
        word = words + p0 * WORDS + tl.arange(0, C)
        tl.store(word, tl.full((C,), -1, tl.int32))
        tl.store(word + NUMBER * C, leaf)
        tl.store(word + LEAF * C, leaf)
        tl.store(word + LIST * C, p)


@triton.jit  # type: ignore[untyped-decorator]
def neighbours_on_line(reals, words, m, C: tl.constexpr):
    """The nearer of the two clusters beside each; ties by the smaller `p ^ q`."""
    for p0 in range(0, m, C):
        p = p0 + tl.arange(0, C)
        inside = p < m
        own = reals + p0 * 5 + tl.arange(0, C)
        x = tl.load(own)
        r = tl.load(own + 2 * C)
        has_left = inside & (p > 0)
        has_right = p + 1 < m
        before = reals + at(p - 1, 5, C)
        after = reals + at(p + 1, 5, C)
        left = x - tl.load(before, mask=has_left, other=0)
        right = tl.load(after, mask=has_right, other=0) - x
        left = gap(left * left, r + tl.load(before + 2 * C, mask=has_left, other=1))
        right = gap(right * right, r + tl.load(after + 2 * C, mask=has_right, other=1))
        even = (p & 1) == 0  # then p ^ (p + 1) is 1 and p ^ (p - 1) more
        to_right = has_right & ((~has_left) | (right < left) | ((right == left) & even))
        tl.store(words + p0 * WORDS + tl.arange(0, C), tl.where(to_right, p + 1, p - 1), mask=inside)


@triton.jit
def level(cost):
    """Whole numbers of the order of the costs, about evenly spaced in their logarithm."""
    return cost.to(tl.float32).to(tl.int32, bitcast=True) >> 16


@triton.jit  # type: ignore[untyped-decorator]
def merge(
    reals,
    words,
    joins,
    costs,
    up,
    tops,
    unit,
    n,
    m,
    done,
    D: tl.constexpr,
    C: tl.constexpr,
    LINE: tl.constexpr,
):
    """Merges all pairs; marks every position. Heights are stored times `unit`.

    Returns (clusters left, merges done, sum of the levels).
    """
    left = 0
    levels = 0
    for p0 in range(0, m, C):
        p = p0 + tl.arange(0, C)
        inside = p < m
        word = words + p0 * WORDS + tl.arange(0, C)
        own = reals + p0 * (D + 4) + tl.arange(0, C)
        if not LINE:
            levels += tl.sum(tl.where(inside, level(tl.load(own + (D + 2) * C)), 0), 0)
        q = tl.load(word, mask=inside, other=-1)
        fresh = q >= 0
        pair = fresh & (tl.load(words + at(q, WORDS, C), mask=fresh, other=-1) == p)
        dead = pair & (q < p)
        first = pair & (p < q)
        alive = inside & (dead == 0)
        rank = left + tl.cumsum(alive.to(tl.int32), 0) - 1
        mark = tl.where(dead, GONE, tl.where(first, -2 - rank, rank))
        tl.store(word + MARK * C, mark, mask=inside)
        left += tl.sum(alive.to(tl.int32), 0)
        count = tl.sum(first.to(tl.int32), 0)
        if count > 0:
            other = reals + at(q, D + 4, C)
            a = tl.load(own + D * C)
            b = tl.load(other + D * C, mask=first, other=1)
            share = b / (a + b)
            square = tl.zeros((C,), a.dtype)
            for c in range(D):
                x = tl.load(own + c * C)
                step = tl.load(other + c * C, mask=first, other=0) - x
                square += step * step
                tl.store(own + c * C, x + step * share, mask=first)  # exact for equal points
            tl.store(own + D * C, a + b, mask=first)
            tl.store(own + (D + 1) * C, 1 / (a + b), mask=first)
            height = tl.sqrt(2 * a * share * square)
            height = tl.maximum(height, tl.load(own + (D + 3) * C))
            height = tl.maximum(height, tl.load(other + (D + 3) * C, mask=first, other=0))
            tl.store(own + (D + 3) * C, height, mask=first)
            t = done + tl.cumsum(first.to(tl.int32), 0) - 1
            word_q = words + at(q, WORDS, C)
            tl.store(joins + 3 * t, tl.load(word + NUMBER * C), mask=first)
            tl.store(joins + 3 * t + 1, tl.load(word_q + NUMBER * C, mask=first, other=0), mask=first)
            tl.store(joins + 3 * t + 2, (a + b).to(tl.int32), mask=first)
            height = height.to(tl.float64) * unit
            tl.store(costs + t, height, mask=first)
            tl.store(word + NUMBER * C, n + t, mask=first)
            leaf = tl.load(word + LEAF * C)
            leaf_q = tl.load(word_q + LEAF * C, mask=first, other=0)
            low = tl.minimum(leaf, leaf_q)
            high = tl.maximum(leaf, leaf_q)
            tl.store(word + LEAF * C, low, mask=first)
            tl.store(up + high, low, mask=first)
            tl.store(tops + high, height, mask=first)
            done += count
    return left, done, levels


@triton.jit  # type: ignore[untyped-decorator]
def close_gaps(reals, words, m, left, most, D: tl.constexpr, C: tl.constexpr, LINE: tl.constexpr):
    """Moves what is alive to positions 0 .. left-1. Returns how many stale rows of at most level `most` are
    listed, ascending."""
    listed = 0
    for p0 in range(0, m, C):
        p = p0 + tl.arange(0, C)
        word = words + p0 * WORDS + tl.arange(0, C)
        own = reals + p0 * (D + 4) + tl.arange(0, C)
        mark = tl.load(word + MARK * C, mask=p < m, other=GONE)
        alive = mark != GONE
        to = tl.where(mark >= 0, mark, -2 - mark)
        word_to = words + at(to, WORDS, C)
        own_to = reals + at(to, D + 4, C)
        number = tl.load(word + NUMBER * C)
        leaf = tl.load(word + LEAF * C)
        if not LINE:
            q = tl.load(word)
            near = (mark >= 0) & (q >= 0)
            target = tl.load(words + at(q, WORDS, C) + MARK * C, mask=near, other=-1)
            target = tl.where(near & (target >= 0), target, -1)
            wanted = (alive & (target < 0) & (level(tl.load(own + (D + 2) * C)) <= most)).to(tl.int32)
            place = listed + tl.cumsum(wanted, 0) - 1
            listed += tl.sum(wanted, 0)
        tl.debug_barrier()  # a block is read before it is overwritten; later blocks never are
        tl.store(word_to + NUMBER * C, number, mask=alive)
        tl.store(word_to + LEAF * C, leaf, mask=alive)
        if not LINE:
            tl.store(word_to, target, mask=alive)
            tl.store(words + at(place, WORDS, C) + LIST * C, to, mask=wanted != 0)
        for row in range(D + 4):
            if not LINE or row != D + 2:  # on a line the neighbour and its cost are found anew
                x = tl.load(own + row * C)
                tl.debug_barrier()
                tl.store(own_to + row * C, x, mask=alive)
    if not LINE:  # the barrier of the last row lies between the reads of these positions and this
        far = left + tl.arange(0, C)
        own = reals + at(far, D + 4, C)
        for c in range(D):
            tl.store(own + c * C, tl.full((C,), FAR, reals.dtype.element_ty), mask=far < (left + C - 1) & -C)
    return listed


# as without a device: nothing gains from aligned pointers, and slices of tensors would compile again
@triton.jit(do_not_specialize_on_alignment=range(7))  # type: ignore[untyped-decorator]
def ward_kernel(
    problems,  # [problems, 7]: what place_points needs; address of the points' order (LINE); n; where results
    # begin; where the state begins, in positions
    points,  # `reals` of all problems, scratch
    state,  # `words` of all, scratch
    joins,  # [n, 3] each, from here on: merges in the order made: two clusters, points of both
    costs,  # [n] each: their heights
    up,  # [n] each: the lowest point of the cluster that a point's cluster is merged into
    tops,  # [n] each: at this height; infinity for point 0
    DOUBLE: tl.constexpr,  # float64 points
    D: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    LINE: tl.constexpr,
):
    problem = problems + 7 * tl.program_id(0)
    n = tl.load(problem + 4).to(tl.int32)
    place = tl.load(problem + 5)
    begin = tl.load(problem + 6)
    reals = points + begin * (D + 4)
    words = state + begin * WORDS
    joins += 3 * place
    costs += place
    up += place
    tops += place
    unit = place_points(problem, reals, n, DOUBLE, D, C)
    start(reals, words, tl.load(problem + 3), n, D, C, LINE)
    tl.store(up, 0)
    tl.store(tops, float("inf"))
    tl.debug_barrier()
    m = n
    done = 0
    listed = n
    ties = 0
    while m > 1:
        if LINE:
            neighbours_on_line(reals, words, m, C)
        else:
            scan(reals, words, listed, m, ties, D, R, C)
        tl.debug_barrier()
        left, done, levels = merge(reals, words, joins, costs, up, tops, unit, n, m, done, D, C, LINE)
        if not LINE:  # on a line nothing reads what another lane wrote here
            tl.debug_barrier()
        ties = 0
        if (m - left) * SLOW < listed:
            ties = 1
        if left == m:  # only rounding and ties of stale neighbours bring this about
            for p0 in range(0, m, C):
                tl.store(words + p0 * WORDS + LIST * C + tl.arange(0, C), p0 + tl.arange(0, C))
            listed = m
        else:
            most = levels // m
            if left <= C:
                most = 0x7FFFFFFF
            listed = close_gaps(reals, words, m, left, most, D, C, LINE)
        if not LINE:  # on a line the next round reads coordinates and sizes, which have a barrier behind them
            tl.debug_barrier()
        m = left
