# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""Lay out the state of a problem of kernels/ward.py, and bound how far a float32 cost can be off.

The clusters that are left have positions 0 .. m-1, in the order of their ids; a cluster's id is the largest
of its points' numbers, so a union takes the higher position. Rows of C positions form a tile, so that one
address serves all rows of a tile:

==========  ========================  ==========================================================
`reals`     float32 [P / C, D+5, C]   0 .. D-1: means about the mean of all points, times `down`
(D + ...)   NORM                      minus half the squared norm; -1e30 for positions without a cluster
            HALF                      1 / (2 size)
            LOW                       lower bound of the cost of the nearest
            LIMIT                     DECIDED, TIED, or of an undecided row the cost up to which others matter
            OTHERS                    lower bound of the cost of all that are not tracked
`words`     int32 [P / C, 7, C]       NEAR: position of the nearest; -1: stale; EQUAL, EQUAL_LAST: below
            ID                        the cluster's id
            SIZE                      its points
            MARK                      of a merge: see kernels/merge.py
            LIST                      the rows that are to be looked at, from position 0 on
            TRACKED ..                the TRACKS nearest when the row was scanned; -1: none
`totals`    float64 [n + 2, D]        sums of the points of every cluster, by id; then the mean; the offset
==========  ========================  ==========================================================

Names: `p`, `q`, `i`, `j` are positions, `own` and `word` a position's places in `reals` and `words`,
`m` the clusters left, `n` the points, `B` the threads of a program, `R` the rows of a scan's tile.

An approximate cost c of a cluster of `size` points whose mean has the norm |a| is off by at most

    error(c) = kappa (2 |a| sqrt(size) + sqrt(c))^2 + noise size + 1e-35,    kappa = (2 D + 14) 2^-24:

float32 rounds each product of coordinates and sum, and |b| <= |a| + |a - b|. `noise` is for what float64
rounds: costs by totals are off by n + D units of the last place of the clusters' distances to the origin.
Costs further apart than 2.02 errors are so far apart that no rounding can turn them round, whoever computes.
"""

import triton
import triton.language as tl

C = tl.constexpr(32)

NORM = tl.constexpr(0)
HALF = tl.constexpr(1)
LOW = tl.constexpr(2)
LIMIT = tl.constexpr(3)
OTHERS = tl.constexpr(4)
REALS = tl.constexpr(5)  # besides the coordinates

NEAR = tl.constexpr(0)
ID = tl.constexpr(1)
SIZE = tl.constexpr(2)
MARK = tl.constexpr(3)
LIST = tl.constexpr(4)
TRACKED = tl.constexpr(5)
TRACKS = tl.constexpr(2)
WORDS = tl.constexpr(7)

STALE = tl.constexpr(-1)
EQUAL_LAST = tl.constexpr(-2)  # the highest of equal points, which takes in the others
EQUAL = tl.constexpr(-3)  # equal to a higher point
DECIDED = tl.constexpr(-1.0)
TIED = tl.constexpr(-2.0)  # decided, but rounding may have done it

FAR = tl.constexpr(-1e30)
NOBODY = tl.constexpr(0x7FFFFFFF)
ULP = tl.constexpr(5.9604645e-8)  # of float32, 2^-24
BLUR = tl.constexpr(3.552713678800501e-15)  # 2^-48, as csrc/ward/clusters.cpp has it


@triton.jit
def row_of(p, ROWS: tl.constexpr):
    """Return where position p lies in row 0 of its tile [ROWS, C]; row r lies r * C further on."""
    return (p & -C) * (ROWS - 1) + p


@triton.jit
def error(root, half, noise, D: tl.constexpr):
    """Bound the error of a cost: `root` is 2 |a| sqrt(size) + sqrt(cost), `half` is 1 / (2 size)."""
    return (2 * D + 14) * ULP * root * root + 0.5 * noise / half + 1e-35


@triton.jit
def reciprocal(x, PTX: tl.constexpr):
    """Return 1 / x for float32 x > 0, to two units in the last place."""
    if PTX:
        y = tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        w = tl.rsqrt(x)
        y = w * w
    return y


@triton.jit
def power_of_two(k):
    """Return 2^k, float64, for int64 k from -1022 to 1023."""
    return ((k + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def exponent_of(x):
    """E of float64 x >= 0 in [2^(e-1), 2^e); -1022 for all that is less than 2^-1022."""
    return (x.to(tl.int64, bitcast=True) >> 52) - 1022
