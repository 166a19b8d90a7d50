# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: disable-error-code="assignment,misc,attr-defined"
"""Decide in float64 what float32 cannot tell, and without a scan what tracked neighbours tell."""

import triton
import triton.language as tl

from .scan import load_rows
from .state import (
    BLUR,
    DECIDED,
    EQUAL,
    EQUAL_LAST,
    FAR,
    HALF,
    ID,
    LIMIT,
    LIST,
    LOW,
    NEAR,
    NOBODY,
    NORM,
    OTHERS,
    REALS,
    SIZE,
    TIED,
    TRACKED,
    TRACKS,
    WORDS,
    C,
    error,
    reciprocal,
    row_of,
)


@triton.jit(noinline=True)
def decide(
    reals, words, totals, parents, heights, sizes, count, m, n, first, D: tl.constexpr, B: tl.constexpr
):
    """Find the nearest of undecided rows, one by one, by the formula of csrc/ward/cost.hpp.

    A row is marked TIED where rounding may have decided. `first`: all clusters are points, and equal ones are
    joined: each to the next, at height 0. Sizes are not read then, for they are being written. What tracks
    one of them is to track the last of them, which becomes the first that it tracks itself.
    """
    lane = tl.arange(0, B)
    for k0 in range(0, count, B):
        k = k0 + lane
        i = tl.load(words + row_of(k, WORDS) + LIST * C, mask=k < count, other=0)
        limits = tl.load(reals + row_of(i, D + REALS) + (D + LIMIT) * C, mask=k < count, other=DECIDED)
        undecided = tl.where((limits >= 0) & (k < count), i, NOBODY)
        p = tl.min(undecided, 0)
        while p < NOBODY:
            row = reals + row_of(p, D + REALS)
            word = words + row_of(p, WORDS)
            limit = tl.max(tl.where(undecided == p, limits, DECIDED), 0)
            norm = tl.load(row + (D + NORM) * C)
            half = tl.load(row + (D + HALF) * C, mask=first == 0, other=0.5)
            size = tl.load(word + SIZE * C, mask=first == 0, other=1).to(tl.float64)
            total = totals + tl.load(word + ID * C) * D
            best = tl.full((B,), float("inf"), tl.float64)
            second = tl.full((B,), float("inf"), tl.float64)
            which = tl.full((B,), NOBODY, tl.int32)
            equals = 0
            below = 0
            following = NOBODY
            highest = p
            for j0 in range(0, m, B):
                j = j0 + lane
                inside = (j < m) & (j != p)
                own = reals + row_of(j, D + REALS)
                score = norm + tl.load(own + (D + NORM) * C, mask=inside, other=FAR)
                for c in range(D):
                    x, y = tl.broadcast(tl.load(row + c * C), tl.load(own + c * C, mask=inside, other=0))
                    score = tl.fma(x, y, score)
                score = score / (
                    half + tl.load(own + (D + HALF) * C, mask=(inside & (first == 0)) != 0, other=0.5)
                )
                near = inside & (-score <= limit)
                if tl.max(near.to(tl.int32), 0) > 0:
                    word_j = words + row_of(j, WORDS)
                    other = totals + tl.load(word_j + ID * C, mask=near, other=0) * D
                    size_j = tl.load(word_j + SIZE * C, mask=(near & (first == 0)) != 0, other=1).to(
                        tl.float64
                    )
                    squares = tl.zeros((B,), tl.float64)
                    for c in range(D):
                        step = tl.load(total + c) * size_j - tl.load(other + c, mask=near, other=0) * size
                        squares = squares + step * step
                    cost = tl.where(near, squares / (size * size_j * (size + size_j)), float("inf"))
                    second = tl.minimum(second, tl.maximum(best, cost))
                    better = cost < best
                    best = tl.where(better, cost, best)
                    which = tl.where(better, j, which)
                    if first != 0:
                        same = near & (squares == 0)
                        equals += tl.sum(same.to(tl.int32), 0)
                        below += tl.sum((same & (j < p)).to(tl.int32), 0)
                        following = tl.minimum(following, tl.min(tl.where(same & (j > p), j, NOBODY), 0))
                        highest = tl.maximum(highest, tl.max(tl.where(same, j, -1), 0))
            low = tl.min(best, 0)
            found = tl.min(tl.where(best == low, which, NOBODY), 0)
            next_low = tl.min(tl.where(which == found, second, best), 0)
            squared = tl.zeros((), tl.float64)
            for c in range(D):
                x = tl.load(total + c)
                squared += x * x
            root = tl.sqrt(low)
            off = (n + D) * BLUR * (root + tl.sqrt(squared / size))
            tied = tl.sqrt(next_low) <= root + off
            tl.debug_barrier()
            if equals > 0:
                tied = tied & False
                found = tl.where(following < NOBODY, EQUAL, EQUAL_LAST)
                if following < NOBODY:
                    tl.store(parents + p, following)
                    tl.store(heights + p, 0.0)
                    tl.store(sizes + p, below + 2)
                    tl.store(word + TRACKED * C, highest)
                tl.store(word + SIZE * C, equals + 1)
                tl.store(row + (D + HALF) * C, 0.5 / (equals + 1).to(tl.float32))
            tl.store(word + NEAR * C, found)
            tl.store(row + (D + LIMIT) * C, tl.where(tied, TIED, DECIDED))
            p = tl.min(tl.where(undecided > p, undecided, NOBODY), 0)


@triton.jit(noinline=True)
def resolve(reals, words, count, ceiling, noise, D: tl.constexpr, B: tl.constexpr, PTX: tl.constexpr):
    """Give listed rows their nearest where it is sure to be among those they track.

    The others stay listed, if their costs may be within the ceiling. Returns how many.
    """
    listed = 0
    for k0 in range(0, count, B):
        k = k0 + tl.arange(0, B)
        inside = k < count
        i = tl.load(words + row_of(k, WORDS) + LIST * C, mask=inside, other=0)
        word = words + row_of(i, WORDS)
        row = reals + row_of(i, D + REALS)
        tracked = ()
        for t in tl.static_range(TRACKS):
            tracked = tracked + (tl.load(word + (TRACKED + t) * C, mask=inside, other=-1),)  # noqa: RUF005
        bound = tl.load(row + (D + LOW) * C, mask=inside, other=0)
        if tl.max(tracked[0], 0) >= 0:
            norm = tl.load(row + (D + NORM) * C, mask=inside, other=0)
            half = tl.load(row + (D + HALF) * C, mask=inside, other=1)
            others = tl.load(row + (D + OTHERS) * C, mask=inside, other=0)
            best = tl.full((B,), float("inf"), tl.float32)
            second = tl.full((B,), float("inf"), tl.float32)
            which = tl.full((B,), -1, tl.int32)
            xs = ()
            if D <= 16:
                xs = load_rows(row, D)
            for t in tl.static_range(TRACKS):
                valid = tracked[t] >= 0
                for u in tl.static_range(t):
                    valid = valid & (tracked[t] != tracked[u])
                other = reals + row_of(tl.maximum(tracked[t], 0), D + REALS)
                cost = norm + tl.load(other + (D + NORM) * C)
                if D <= 16:
                    ys = load_rows(other, D)
                    for c in tl.static_range(D):
                        cost = tl.fma(xs[c], ys[c], cost)
                else:
                    for c in range(D):
                        cost = tl.fma(tl.load(row + c * C), tl.load(other + c * C), cost)
                cost = cost * reciprocal(half + tl.load(other + (D + HALF) * C), PTX)
                cost = tl.where(valid, tl.maximum(-cost, 0.0), float("inf"))
                second = tl.minimum(second, tl.maximum(best, cost))
                which = tl.where(cost < best, tracked[t], which)
                best = tl.minimum(best, cost)
            known = inside & (which >= 0)
            best = tl.where(known, best, 0.0)
            root = 2 * tl.sqrt(-norm / half) + tl.sqrt(best)
            off = error(root, half, noise, D)
            sure = known & (best + 2.02 * off < second) & (best + 1.01 * off < others)
            bound = tl.where(known, tl.maximum(bound, tl.minimum(others, best - off)), bound)
            tl.store(word + NEAR * C, which, mask=sure)
            tl.store(row + (D + LIMIT) * C, tl.full((B,), DECIDED, tl.float32), mask=sure)
            tl.store(row + (D + LOW) * C, bound, mask=known)
            wanted = (inside & (sure == 0) & (bound <= ceiling)).to(tl.int32)
        else:
            wanted = inside.to(tl.int32)
        position = listed + tl.cumsum(wanted, 0) - 1
        listed += tl.sum(wanted, 0)
        tl.debug_barrier()
        tl.store(words + row_of(position, WORDS) + LIST * C, i, mask=wanted != 0)
    return listed


@triton.jit
def list_stale(reals, words, m, ceiling, D: tl.constexpr, B: tl.constexpr):
    """List stale rows whose costs may be within the ceiling.

    Returns how many there are, and of the others how many are TIED.
    """
    listed = 0
    tied = 0
    for p0 in range(0, m, B):
        p = p0 + tl.arange(0, B)
        inside = p < m
        own = reals + row_of(p, D + REALS)
        near = tl.load(words + row_of(p, WORDS) + NEAR * C, mask=inside, other=0)
        limit = tl.load(own + (D + LIMIT) * C, mask=inside, other=DECIDED)
        within = inside & (tl.load(own + (D + LOW) * C, mask=inside, other=0) <= ceiling)
        wanted = (within & (near < 0)).to(tl.int32)
        position = listed + tl.cumsum(wanted, 0) - 1
        tl.store(words + row_of(position, WORDS) + LIST * C, p, mask=wanted != 0)
        listed += tl.sum(wanted, 0)
        tied += tl.sum((within & (near >= 0) & (limit == TIED)).to(tl.int32), 0)
    return listed, tied
