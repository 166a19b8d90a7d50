# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: disable-error-code="assignment,misc,attr-defined"
"""Merge all pairs that are each other's nearest in a round of kernels/ward.py, and close the gaps.

A MARK says what becomes of a position: r >= 0: it moves to r; -2 - 2 r: it has grown, and moves to r;
-3 - 2 q: it is gone, into position q. Tracked positions follow, so that a cluster may track a union.
"""

import triton
import triton.language as tl

from .state import (
    DECIDED,
    EQUAL,
    EQUAL_LAST,
    FAR,
    HALF,
    ID,
    LIMIT,
    LIST,
    LOW,
    MARK,
    NEAR,
    NORM,
    REALS,
    SIZE,
    STALE,
    TIED,
    TRACKED,
    TRACKS,
    WORDS,
    C,
    row_of,
)


@triton.jit
def level(cost):
    """Return whole numbers, about evenly spaced in the logarithm of costs."""
    return cost.to(tl.int32, bitcast=True) >> 16


@triton.jit(noinline=True)
def merge(reals, words, totals, parents, heights, sizes, down, n, m, done, D: tl.constexpr, B: tl.constexpr):
    """Merge all pairs and mark every position.

    Returns the clusters left, the merges done, the sum of the levels, and how many merges rounding may have
    decided.
    """
    left = 0
    levels = 0
    tied = 0
    for p0 in range(0, m, B):
        p = p0 + tl.arange(0, B)
        inside = p < m
        word = words + row_of(p, WORDS)
        own = reals + row_of(p, D + REALS)
        q = tl.load(word + NEAR * C, mask=inside, other=STALE)
        levels += tl.sum(tl.where(inside, level(tl.load(own + (D + LOW) * C, mask=inside, other=0)), 0), 0)
        fresh = q >= 0
        pair = fresh & (tl.load(words + row_of(q, WORDS) + NEAR * C, mask=fresh, other=STALE) == p)
        grown = pair & (q < p)
        gone = (pair & (p < q)) | (q == EQUAL)
        changed = grown | (q == EQUAL_LAST)
        tied += tl.sum((tl.load(own + (D + LIMIT) * C, mask=pair, other=DECIDED) == TIED).to(tl.int32), 0)
        into = tl.where(q == EQUAL, tl.load(word + TRACKED * C, mask=q == EQUAL, other=0), q)
        alive = inside & (gone == 0)
        rank = left + tl.cumsum(alive.to(tl.int32), 0) - 1
        tl.store(
            word + MARK * C,
            tl.where(gone, -3 - 2 * into, tl.where(changed, -2 - 2 * rank, rank)),
            mask=inside,
        )
        left += tl.sum(alive.to(tl.int32), 0)
        done += tl.sum(gone.to(tl.int32), 0)
        if tl.sum(changed.to(tl.int32), 0) > 0:
            join(reals, words, totals, parents, heights, sizes, down, n, p, q, grown, changed, D, B)
    return left, done, levels, tied


@triton.jit
def join(
    reals,
    words,
    totals,
    parents,
    heights,
    sizes,
    down,
    n,
    p,
    q,
    grown,
    changed,
    D: tl.constexpr,
    B: tl.constexpr,
):
    """Let clusters p take in clusters q, where they have `grown`.

    Those that took in equal points get their totals.
    """
    W: tl.constexpr = D if D <= 16 else 8
    word = words + row_of(p, WORDS)
    own = reals + row_of(p, D + REALS)
    for t in tl.static_range(TRACKS):  # else it might track itself
        tl.store(word + (TRACKED + t) * C, tl.full((B,), -1, tl.int32), mask=changed)
    word_q = words + row_of(q, WORDS)
    kept = tl.load(word + ID * C, mask=changed, other=0)
    lost = tl.load(word_q + ID * C, mask=grown, other=0)
    size = tl.load(word + SIZE * C, mask=changed, other=1)
    size_q = tl.load(word_q + SIZE * C, mask=grown, other=0)
    other = reals + row_of(q, D + REALS)
    bound = tl.load(own + (D + LOW) * C, mask=grown, other=0)
    bound = tl.maximum(bound, tl.load(other + (D + LOW) * C, mask=grown, other=0))
    na = size.to(tl.float64)
    nb = tl.where(grown, size_q, 1).to(tl.float64)
    times = tl.where(grown, 1.0, na)
    part = 1 / (size + size_q).to(tl.float64)
    squares = tl.zeros((B,), tl.float64)
    norm = tl.zeros((B,), tl.float32)
    for c0 in range(0, D, W):
        xs = ()
        ys = ()
        for c in tl.static_range(W):
            inside = c0 + c < D
            xs = xs + (tl.load(totals + kept * D + c0 + c, mask=changed & inside, other=0),)  # noqa: RUF005
            ys = ys + (tl.load(totals + lost * D + c0 + c, mask=grown & inside, other=0),)  # noqa: RUF005
        for c in tl.static_range(W):
            inside = c0 + c < D
            step = xs[c] * nb - ys[c] * na
            squares = squares + step * step
            total = xs[c] * times + ys[c]
            tl.store(totals + kept * D + c0 + c, total, mask=changed & inside)
            mean = tl.load(totals + n * D + c0 + c, mask=inside, other=0)
            z = ((total * part - mean) * down).to(tl.float32)
            norm = tl.fma(z, z, norm)
            tl.store(own + (c0 + c) * C, z, mask=changed & inside)
    tl.store(own + (D + NORM) * C, -0.5 * norm, mask=changed)
    tl.store(own + (D + HALF) * C, 0.5 / (size + size_q).to(tl.float32), mask=changed)
    tl.store(own + (D + LOW) * C, bound, mask=changed)
    tl.store(word + SIZE * C, size + size_q, mask=changed)
    tl.store(parents + lost, kept, mask=grown)
    height = tl.sqrt(2 * (squares / (na * nb * (na + nb))))
    tl.store(heights + lost, height, mask=grown)
    tl.store(parents + 2 * n + lost, n + lost, mask=grown & (height == 0))  # behind those of equal points
    tl.store(sizes + lost, size + size_q, mask=grown)


@triton.jit
def moved(words, p):
    """Return where the cluster at position p, or the union that it is in, is to go."""
    mark = tl.load(words + row_of(p, WORDS) + MARK * C, mask=p >= 0, other=0)
    gone = (p >= 0) & (mark < 0) & ((mark & 1) == 1)
    into = (-3 - mark) >> 1
    next_mark = tl.load(words + row_of(into, WORDS) + MARK * C, mask=gone, other=0)
    mark = tl.where(gone, next_mark, mark)
    return tl.where(p < 0, -1, tl.where(mark >= 0, mark, (-2 - mark) >> 1))


@triton.jit(noinline=True)
def close_gaps(reals, words, m, left, most, ceiling, D: tl.constexpr, B: tl.constexpr):
    """Move what is alive to positions 0 .. left-1.

    Blocks are read before they are overwritten, and later blocks never are. Returns how many stale rows of at
    most level `most`, and whose costs may be within the ceiling, are listed.
    """
    ROWS: tl.constexpr = D + LIMIT + 2
    W: tl.constexpr = ROWS if ROWS <= 16 else 8
    listed = 0
    for p0 in range(0, m, B):
        p = p0 + tl.arange(0, B)
        inside = p < m
        word = words + row_of(p, WORDS)
        own = reals + row_of(p, D + REALS)
        mark = tl.load(word + MARK * C, mask=inside, other=-1)
        alive = inside & ((mark >= 0) | ((mark & 1) == 0))
        to = tl.where(mark >= 0, mark, (-2 - mark) >> 1)
        tracked = ()
        for t in tl.static_range(TRACKS):
            position = moved(words, tl.load(word + (TRACKED + t) * C, mask=alive, other=-1))
            tracked = tracked + (position,)  # noqa: RUF005
        id = tl.load(word + ID * C, mask=inside, other=0)
        size = tl.load(word + SIZE * C, mask=inside, other=0)
        q = tl.load(word + NEAR * C, mask=inside, other=STALE)
        near = (mark >= 0) & (q >= 0)
        target = tl.load(words + row_of(q, WORDS) + MARK * C, mask=near, other=-1)
        target = tl.where(near & (target >= 0), target, STALE)
        bound = tl.load(own + (D + LOW) * C, mask=inside, other=0)
        wanted = (alive & (target < 0) & (level(bound) <= most) & (bound <= ceiling)).to(tl.int32)
        position = listed + tl.cumsum(wanted, 0) - 1
        listed += tl.sum(wanted, 0)
        tl.debug_barrier()
        word_to = words + row_of(to, WORDS)
        own_to = reals + row_of(to, D + REALS)
        tl.store(word_to + ID * C, id, mask=alive)
        tl.store(word_to + SIZE * C, size, mask=alive)
        tl.store(word_to + NEAR * C, target, mask=alive)
        for t in tl.static_range(TRACKS):
            tl.store(word_to + (TRACKED + t) * C, tracked[t], mask=alive)
        tl.store(words + row_of(position, WORDS) + LIST * C, to, mask=wanted != 0)
        for r0 in range(0, ROWS, W):
            xs = ()
            for r in tl.static_range(W):
                xs = xs + (tl.load(own + (r0 + r) * C, mask=inside & (r0 + r < ROWS), other=0),)  # noqa: RUF005
            tl.debug_barrier()
            for r in tl.static_range(W):
                tl.store(own_to + (r0 + r) * C, xs[r], mask=alive & (r0 + r < ROWS))
    far = left + tl.arange(0, C)
    padding = reals + row_of(far, D + REALS) + (D + NORM) * C
    tl.store(padding, tl.full((C,), FAR, tl.float32), mask=far < (left + C - 1) & -C)
    return listed
