# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
"""Normalize the points of a problem for Ward: centred on their mean, scaled, in the state's dtype."""

import triton
import triton.language as tl

FAR = tl.constexpr(1e9)  # of positions without a point; points are about 1 in size, and costs stay finite


@triton.jit
def power_below(x):
    """Return 2^-e and 2^e for float64 x >= 0 in [2^(e-1), 2^e), exactly.

    For x = 0 and at both ends of the range of numbers, return some power that does not overflow.
    """
    exponent = tl.minimum(tl.maximum(x.to(tl.int64, bitcast=True) >> 52, 1), 2044)
    down = ((2045 - exponent) << 52).to(tl.float64, bitcast=True)
    up = ((exponent + 1) << 52).to(tl.float64, bitcast=True)
    return down, up


@triton.jit  # type: ignore[untyped-decorator]
def place_points(problem, reals, n, DOUBLE: tl.constexpr, D: tl.constexpr, C: tl.constexpr):
    """Write points [n, D], centred and scaled by a power of two, to rows 0 .. D-1 of `reals`.

    After that no square overflows or underflows in float32, whatever the points' magnitude and common offset.
    `problem` int64: address of the points, and how many numbers lie from one to the next and from one
    coordinate to the next. Returns the factor, float64, that undoes the power.
    """
    source = tl.load(problem).to(tl.pointer_type(tl.float64 if DOUBLE else tl.float32))
    next_point = tl.load(problem + 1)
    next_coordinate = tl.load(problem + 2)
    lane = tl.arange(0, C)
    largest = tl.zeros((C,), tl.float64)
    for p0 in range(0, n, C):
        p = p0 + lane
        for c in range(D):
            x = tl.load(source + p * next_point + c * next_coordinate, mask=p < n, other=0).to(tl.float64)
            largest = tl.maximum(largest, tl.abs(x))
    down, unit = power_below(tl.max(largest, 0))
    largest = tl.zeros((C,), tl.float64)
    for c in range(D):
        total = tl.zeros((C,), tl.float64)
        for p0 in range(0, n, C):
            p = p0 + lane
            x = tl.load(source + p * next_point + c * next_coordinate, mask=p < n, other=0).to(tl.float64)
            total += x * down
        mean = tl.sum(total, 0) / n
        for p0 in range(0, n, C):
            p = p0 + lane
            x = tl.load(source + p * next_point + c * next_coordinate, mask=p < n, other=0).to(tl.float64)
            x = x * down - mean
            largest = tl.maximum(largest, tl.where(p < n, tl.abs(x), 0))
            tl.store(reals + p0 * (D + 4) + c * C + lane, x.to(reals.dtype.element_ty))
    down, up = power_below(tl.max(largest, 0))
    for p0 in range(0, n, C):
        own = reals + p0 * (D + 4) + lane
        for c in range(D):
            x = tl.load(own + c * C).to(tl.float64) * down
            tl.store(own + c * C, tl.where(p0 + lane < n, x, FAR).to(reals.dtype.element_ty))
    return unit * up
