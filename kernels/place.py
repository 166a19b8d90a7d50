# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: disable-error-code="assignment,misc,attr-defined"
"""Bring points to where Ward works on them: totals in float64, and the float32 state of scans."""

import triton
import triton.language as tl

from .state import (
    BLUR,
    DECIDED,
    FAR,
    HALF,
    ID,
    LIMIT,
    LIST,
    NORM,
    REALS,
    SIZE,
    STALE,
    ULP,
    WORDS,
    C,
    exponent_of,
    power_of_two,
    row_of,
)

MODERATE = tl.constexpr(60)  # exponents up to this are left alone, as csrc/linkage/scale.cpp does
NARROW = tl.constexpr(300)  # and so are exponents that differ by as much


@triton.jit
def offset_of(lowest, highest):
    """Return what is taken from a coordinate: the middle, where all values lie within a factor of two.

    That is exact.
    """
    near = ((lowest > 0) & (highest <= 2 * lowest)) | ((highest < 0) & (lowest >= 2 * highest))
    return tl.where(near, lowest + (highest - lowest) / 2, 0.0)


@triton.jit
def lanes_of(kind, value, COUNT: tl.constexpr, B: tl.constexpr):
    xs = ()
    for _ in tl.static_range(COUNT):
        xs = xs + (tl.full((B,), value, kind),)  # noqa: RUF005
    return xs


@triton.jit
def load_points(source, p, n, c0, next_point, next_coordinate, D: tl.constexpr, W: tl.constexpr):
    """Load coordinates c0 .. c0+W-1 of points p as float64, all loads at once."""
    xs = ()
    for c in tl.static_range(W):
        inside = p < n
        if D % W != 0:
            inside = inside & (c0 + c < D)
        x = tl.load(source + p * next_point + (c0 + c) * next_coordinate, mask=inside, other=0)
        xs = xs + (x.to(tl.float64),)  # noqa: RUF005
    return xs


@triton.jit(noinline=True)
def measure(
    source, totals, n, next_point, next_coordinate, DOUBLE: tl.constexpr, D: tl.constexpr, B: tl.constexpr
):
    """Write mean and offset of every coordinate to rows n and n + 1 of `totals`.

    Returns the largest distance of a coordinate to its mean, the squared norm of the mean, and whether the
    numbers are so large, so small or so different that squares might overflow or vanish.
    """
    W: tl.constexpr = D if D <= 4 else (3 if D % 3 == 0 else 4)
    largest = tl.zeros((), tl.float64)
    squared = tl.zeros((), tl.float64)
    size = tl.zeros((B,), tl.float64)
    least = tl.full((B,), float("inf"), tl.float64)
    for c0 in range(0, D, W):
        lows = lanes_of(tl.float64, float("inf"), W, B)
        highs = lanes_of(tl.float64, float("-inf"), W, B)
        sums = lanes_of(tl.float64, 0.0, W, B)
        for p0 in range(0, n, B):
            p = p0 + tl.arange(0, B)
            xs = load_points(source, p, n, c0, next_point, next_coordinate, D, W)
            new_lows = ()
            new_highs = ()
            new_sums = ()
            for c in tl.static_range(W):
                new_lows = new_lows + (tl.where(p < n, tl.minimum(lows[c], xs[c]), lows[c]),)  # noqa: RUF005
                new_highs = new_highs + (tl.where(p < n, tl.maximum(highs[c], xs[c]), highs[c]),)  # noqa: RUF005
                new_sums = new_sums + (sums[c] + xs[c],)  # noqa: RUF005
                if DOUBLE:
                    far = tl.abs(xs[c])
                    size = tl.maximum(size, far)
                    least = tl.minimum(least, tl.where(far > 0, far, float("inf")))
            lows = new_lows
            highs = new_highs
            sums = new_sums
        for c in tl.static_range(W):
            lowest = tl.min(lows[c], 0)
            highest = tl.max(highs[c], 0)
            offset = offset_of(lowest, highest)
            mean = tl.sum(sums[c], 0) / n - offset
            far = tl.maximum(highest - offset - mean, mean - (lowest - offset))
            squared += mean * mean
            largest = tl.maximum(largest, tl.where(highest > lowest, far, 0.0))
            inside = c0 + c < D
            tl.store(totals + n * D + c0 + c, mean, mask=inside)
            tl.store(totals + (n + 1) * D + c0 + c, offset, mask=inside)
    hard = tl.zeros((), tl.int32)
    if DOUBLE:
        size = tl.max(size, 0)
        high = exponent_of(size)
        low = exponent_of(tl.min(least, 0))
        wide = (high > MODERATE) | (high < -MODERATE) | (high - low > NARROW)
        hard = ((size > 0) & wide).to(tl.int32)
    return largest, squared, hard


@triton.jit(noinline=True)
def place(
    source,
    reals,
    words,
    totals,
    n,
    next_point,
    next_coordinate,
    largest,
    squared,
    D: tl.constexpr,
    B: tl.constexpr,
):
    """Make every point a cluster of its own, stale and listed.

    Returns the factor of scans, and their `noise`.
    """
    W: tl.constexpr = D if D <= 4 else (3 if D % 3 == 0 else 4)
    exponent = tl.minimum(tl.maximum(exponent_of(largest), -1021), 1022)
    down = power_of_two(-exponent)
    kappa = (2 * D + 14) * ULP
    blur = (n + D) * BLUR * down
    noise = (20000 / kappa * (blur * blur * squared)).to(tl.float32)
    for p0 in range(0, n, B):
        p = p0 + tl.arange(0, B)
        own = reals + row_of(p, D + REALS)
        room = p < ((n + C - 1) & -C)
        norm = tl.zeros((B,), tl.float32)
        for c0 in range(0, D, W):
            xs = load_points(source, p, n, c0, next_point, next_coordinate, D, W)
            for c in tl.static_range(W):
                inside = c0 + c < D
                x = xs[c] - tl.load(totals + (n + 1) * D + c0 + c, mask=inside, other=0)
                tl.store(totals + p * D + c0 + c, x, mask=(p < n) & inside)
                z = (x - tl.load(totals + n * D + c0 + c, mask=inside, other=0)) * down
                y = tl.where((p < n) & inside, z, 0).to(tl.float32)
                norm = tl.fma(y, y, norm)
                tl.store(own + (c0 + c) * C, y, mask=room & inside)
        tl.store(own + (D + NORM) * C, tl.where(p < n, -0.5 * norm, FAR), mask=room)
        tl.store(own + (D + HALF) * C, tl.full((B,), 0.5, tl.float32), mask=room)
        tl.store(own + (D + LIMIT) * C, tl.full((B,), DECIDED, tl.float32), mask=room)
        word = words + row_of(p, WORDS)
        tl.store(word, tl.full((B,), STALE, tl.int32), mask=room)
        tl.store(word + ID * C, p, mask=room)
        tl.store(word + SIZE * C, tl.full((B,), 1, tl.int32), mask=room)
        tl.store(word + LIST * C, p, mask=room)
    return down, noise
