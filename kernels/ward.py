# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
"""Ward linkage of one problem per program: rounds that merge all pairs of nearest neighbours at once.

Ward's cost is reducible, so merging every pair of clusters that are each other's nearest neighbour, in any
order, gives the dendrogram of the greedy algorithm (Bruynooghe 1977). A program keeps the centroids, sizes
and cached nearest neighbours of the clusters that are left at positions 0 .. m-1, and a round

1. evaluates the neighbours of stale clusters: those just merged, and those whose neighbour was;
2. merges the pairs: the cluster at the lower position becomes the union, in place;
3. closes the gaps. The order of positions stays, so a position may be read before it is overwritten.

By reducibility a cached neighbour stays the nearest until it is merged itself, but for ties and rounding; if
no two clusters are each other's neighbour in a round, all become stale. Heights are at least those below.

Problems of one coordinate come sorted: there the nearest neighbour is at position p - 1 or p + 1 (``LINE``).

State of a problem, P positions each: ``reals``: D coordinates, size, 1 / size, cost of the nearest
neighbour, height; ``words``: nearest neighbour (-1: stale), number of the cluster, its lowest point, mark,
list of stale positions. Positions m .. of the last tile hold points far away, so that scans need no mask.
"""

import triton
import triton.language as tl

from .scan import gap, scan

WORDS = 5
REALS = 4  # besides the coordinates

NN = tl.constexpr(0)
NUMBER = tl.constexpr(1)
LEAF = tl.constexpr(2)
MARK = tl.constexpr(3)
STALE = tl.constexpr(4)
FAR = tl.constexpr(1e18)  # its square is finite in float32
GONE = tl.constexpr(-1)  # mark of a position that was merged into a lower one


@triton.jit  # type: ignore[untyped-decorator]
def start(reals, words, order, n, P, D: tl.constexpr, B: tl.constexpr, LINE: tl.constexpr):
    """Every point a cluster of its own, and stale."""
    zero = tl.zeros((B,), reals.dtype.element_ty)
    for p0 in range(0, P, B):
        p = p0 + tl.arange(0, B)
        inside = p < P
        tl.store(reals + D * P + p, zero + 1, mask=inside)
        tl.store(reals + (D + 1) * P + p, zero + 1, mask=inside)
        tl.store(reals + (D + 2) * P + p, zero, mask=inside)
        tl.store(reals + (D + 3) * P + p, zero, mask=inside)
        tl.store(words + NN * P + p, tl.full((B,), -1, tl.int32), mask=inside)
        p_leaf = p
        if LINE:
            p_leaf = tl.load(order + p, mask=p < n, other=0)
        tl.store(words + NUMBER * P + p, p_leaf, mask=inside)
        tl.store(words + LEAF * P + p, p_leaf, mask=inside)
        tl.store(words + STALE * P + p, p, mask=inside)
        for c in range(D):
            tl.store(reals + c * P + p, zero + FAR, mask=inside & (p >= n))


@triton.jit  # type: ignore[untyped-decorator]
def neighbours_on_line(reals, words, m, P, B: tl.constexpr):
    """The nearer of the two clusters beside each; ties by the smaller ``p ^ q``."""
    for p0 in range(0, m, B):
        p = p0 + tl.arange(0, B)
        inside = p < m
        x = tl.load(reals + p, mask=inside, other=0)
        r = tl.load(reals + 2 * P + p, mask=inside, other=1)
        has_left = inside & (p > 0)
        has_right = p + 1 < m
        left = x - tl.load(reals + p - 1, mask=has_left, other=0)
        right = tl.load(reals + p + 1, mask=has_right, other=0) - x
        left = gap(left * left, r + tl.load(reals + 2 * P + p - 1, mask=has_left, other=1))
        right = gap(right * right, r + tl.load(reals + 2 * P + p + 1, mask=has_right, other=1))
        even = (p & 1) == 0  # then p ^ (p + 1) is 1 and p ^ (p - 1) more
        to_right = has_right & ((~has_left) | (right < left) | ((right == left) & even))
        tl.store(words + NN * P + p, tl.where(to_right, p + 1, p - 1), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def merge(reals, words, joins, costs, up, tops, n, m, done, P, D: tl.constexpr, B: tl.constexpr):
    """Merges all pairs; marks every position. Returns (clusters left, merges done)."""
    left = 0
    for p0 in range(0, m, B):
        p = p0 + tl.arange(0, B)
        inside = p < m
        q = tl.load(words + NN * P + p, mask=inside, other=0)
        pair = inside & (tl.load(words + NN * P + q, mask=inside, other=-1) == p)
        dead = pair & (q < p)
        first = pair & (p < q)
        alive = inside & (dead == 0)
        rank = left + tl.cumsum(alive.to(tl.int32), 0) - 1
        mark = tl.where(dead, GONE, tl.where(first, -2 - rank, rank))
        tl.store(words + MARK * P + p, mark, mask=inside)
        left += tl.sum(alive.to(tl.int32), 0)
        count = tl.sum(first.to(tl.int32), 0)
        if count > 0:
            a = tl.load(reals + D * P + p, mask=first, other=1)
            b = tl.load(reals + D * P + q, mask=first, other=1)
            share = b / (a + b)
            square = tl.zeros((B,), a.dtype)
            for c in range(D):
                x = tl.load(reals + c * P + p, mask=first, other=0)
                step = tl.load(reals + c * P + q, mask=first, other=0) - x
                square += step * step
                tl.store(reals + c * P + p, x + step * share, mask=first)  # exact for equal points
            tl.store(reals + D * P + p, a + b, mask=first)
            tl.store(reals + (D + 1) * P + p, 1 / (a + b), mask=first)
            height = tl.sqrt(2 * a * share * square)
            height = tl.maximum(height, tl.load(reals + (D + 3) * P + p, mask=first, other=0))
            height = tl.maximum(height, tl.load(reals + (D + 3) * P + q, mask=first, other=0))
            tl.store(reals + (D + 3) * P + p, height, mask=first)
            t = done + tl.cumsum(first.to(tl.int32), 0) - 1
            tl.store(joins + 3 * t, tl.load(words + NUMBER * P + p, mask=first, other=0), mask=first)
            tl.store(joins + 3 * t + 1, tl.load(words + NUMBER * P + q, mask=first, other=0), mask=first)
            tl.store(joins + 3 * t + 2, (a + b).to(tl.int32), mask=first)
            tl.store(costs + t, height, mask=first)
            tl.store(words + NUMBER * P + p, n + t, mask=first)
            one = tl.load(words + LEAF * P + p, mask=first, other=0)
            other = tl.load(words + LEAF * P + q, mask=first, other=0)
            tl.store(words + LEAF * P + p, tl.minimum(one, other), mask=first)
            tl.store(up + tl.maximum(one, other), tl.minimum(one, other), mask=first)
            tl.store(tops + tl.maximum(one, other), height, mask=first)
            done += count
    return left, done


@triton.jit  # type: ignore[untyped-decorator]
def close_gaps(
    reals, words, m, left, P, D: tl.constexpr, B: tl.constexpr, C: tl.constexpr, LINE: tl.constexpr
):
    """Moves what is alive to positions 0 .. left-1. Returns how many of them are stale, listed ascending."""
    stale_count = 0
    for p0 in range(0, m, B):
        p = p0 + tl.arange(0, B)
        inside = p < m
        mark = tl.load(words + MARK * P + p, mask=inside, other=GONE)
        alive = mark != GONE
        to = tl.where(mark >= 0, mark, -2 - mark)
        q = tl.load(words + NN * P + p, mask=mark >= 0, other=0)
        target = tl.load(words + MARK * P + q, mask=mark >= 0, other=-1)
        near = tl.where((mark >= 0) & (target >= 0), target, -1)
        number = tl.load(words + NUMBER * P + p, mask=alive, other=0)
        leaf = tl.load(words + LEAF * P + p, mask=alive, other=0)
        tl.debug_barrier()  # a block is read before it is overwritten; later blocks never are
        tl.store(words + NN * P + to, near, mask=alive)
        tl.store(words + NUMBER * P + to, number, mask=alive)
        tl.store(words + LEAF * P + to, leaf, mask=alive)
        stale = (alive & (near < 0)).to(tl.int32)
        tl.store(words + STALE * P + stale_count + tl.cumsum(stale, 0) - 1, to, mask=stale != 0)
        stale_count += tl.sum(stale, 0)
        for row in range(D + 4):
            x = tl.load(reals + row * P + p, mask=alive, other=0)
            tl.debug_barrier()
            tl.store(reals + row * P + to, x, mask=alive)
    if not LINE:
        tl.debug_barrier()
        far = left + tl.arange(0, C)
        last = (left + C - 1) // C * C
        for c in range(D):
            tl.store(reals + c * P + far, tl.full((C,), FAR, reals.dtype.element_ty), mask=far < last)
    return stale_count


@triton.jit  # type: ignore[untyped-decorator]
def ward_kernel(
    points,  # state of all problems: [D + 4, P] each
    state,  # [5, P] each
    order,  # LINE: the point at every place, n each
    joins,  # [n, 3] each, from here on: merges in the order made: two clusters, points of both
    costs,  # [n] each: their heights
    up,  # [n] each: the lowest point of the cluster that a point's cluster is merged into
    tops,  # [n] each: at this height; infinity for point 0
    sizes,  # [problems]: n
    places,  # [problems]: where the results begin
    starts,  # [problems]: where the state begins, in positions
    D: tl.constexpr,
    R: tl.constexpr,
    C: tl.constexpr,
    B: tl.constexpr,
    LINE: tl.constexpr,
):
    problem = tl.program_id(0)
    n = tl.load(sizes + problem)
    place = tl.load(places + problem)
    begin = tl.load(starts + problem)
    P = (n + C - 1) // C * C
    reals = points + begin * (D + 4)
    words = state + begin * 5
    joins += 3 * place
    costs += place
    up += place
    tops += place
    start(reals, words, order + place, n, P, D, B, LINE)
    tl.store(up, 0)
    tl.store(tops, float("inf"))
    tl.debug_barrier()
    m = n
    done = 0
    stale = n
    ties = 1  # the first scan breaks ties well; later ones do where points are equal
    while m > 1:
        if LINE:
            neighbours_on_line(reals, words, m, P, B)
        else:
            zeros = scan(reals, words + NN * P, words + STALE * P, stale, m, P, ties, D, R, C)
            if done == 0:
                ties = zeros
        tl.debug_barrier()
        left, done = merge(reals, words, joins, costs, up, tops, n, m, done, P, D, B)
        tl.debug_barrier()
        if left == m:  # only rounding and ties of stale neighbours bring this about
            for p0 in range(0, m, B):
                p = p0 + tl.arange(0, B)
                tl.store(words + STALE * P + p, p, mask=p < m)
            stale = m
        else:
            stale = close_gaps(reals, words, m, left, P, D, B, C, LINE)
        tl.debug_barrier()
        m = left
