# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: disable-error-code="assignment,misc,attr-defined"
"""Find the nearest neighbours of listed rows in float32: the inner loop of kernels/ward.py.

With a = -|x|^2 / 2 of the means and r = 1 / (2 size), minus the cost of two clusters is

    (a_i + a_j + x_i . x_j) / (r_i + r_j),

a chain of multiply-adds and a reciprocal. As the costs are not negative, the bits of these numbers are
ordered as the costs are. The last bits of a number are replaced by the position it belongs to: the minimum
of such keys tells both, and positions are in the order of ids.
"""

import triton
import triton.language as tl

from .state import (
    DECIDED,
    HALF,
    LIMIT,
    LIST,
    LOW,
    NEAR,
    NORM,
    OTHERS,
    REALS,
    TRACKED,
    TRACKS,
    WORDS,
    C,
    error,
    reciprocal,
    row_of,
)

MOST = tl.constexpr(0xFFFFFFFF)
NONE = tl.constexpr(0xF0000000)  # keys from here on are of positions without a cluster


@triton.jit
def load_rows(own, COUNT: tl.constexpr):
    xs = ()
    for c in tl.static_range(COUNT):
        xs = xs + (tl.load(own + c * C),)  # noqa: RUF005
    return xs


@triton.jit
def negative_costs(
    xs, row, column, norm, half, D: tl.constexpr, KEPT: tl.constexpr, FIRST: tl.constexpr, PTX: tl.constexpr
):
    """Compute those of rows [R] with the tile of positions [C] at `column`.

    In the first scan all sizes are one, and the denominator is.
    """
    score = norm[:, None] + tl.load(column + (D + NORM) * C)[None, :]
    if KEPT:
        ys = load_rows(column, D)
        for c in tl.static_range(D):
            x, y = tl.broadcast(xs[c][:, None], ys[c][None, :])
            score = tl.fma(x, y, score)
    else:
        for c in range(D):
            x, y = tl.broadcast(tl.load(row + c * C)[:, None], tl.load(column + c * C)[None, :])
            score = tl.fma(x, y, score)
    if not FIRST:
        score = score * reciprocal(half[:, None] + tl.load(column + (D + HALF) * C)[None, :], PTX)
    return score


@triton.jit
def keys_of(score, j, index, PTX: tl.constexpr):
    """Return the bits of scores, the last ones replaced by positions j."""
    bits = score.to(tl.uint32, bitcast=True)
    kept = (~index).to(tl.uint32, bitcast=True)
    position = j.to(tl.uint32)[None, :]
    if PTX:
        key = tl.inline_asm_elementwise(
            "lop3.b32 $0, $1, $2, $3, 0xEA;",  # (a & b) | c
            "=r,r,r,r",
            [bits, kept, position],
            dtype=tl.uint32,
            is_pure=True,
            pack=1,
        )
    else:
        key = (bits & kept) | position
    return key


@triton.jit
def cost_of(key, index):
    return -(key & (~index).to(tl.uint32, bitcast=True)).to(tl.float32, bitcast=True)


@triton.jit
def index_bits(m):
    """Return ones for the bits of positions below m."""
    index = tl.zeros((), tl.int32) + (C - 1)
    while index + 1 < m:
        index = index * 2 + 1
    return index


@triton.jit(noinline=True)
def scan(
    reals,
    words,
    count,
    m,
    noise,
    D: tl.constexpr,
    R: tl.constexpr,
    B: tl.constexpr,
    FIRST: tl.constexpr,
    PTX: tl.constexpr,
):
    """Find the nearest of the listed rows (FIRST: of all), bounds of costs, and which rows are undecided."""
    KEPT: tl.constexpr = D * R <= 144 * (B // 32)  # registers have room for the rows' coordinates
    TILE: tl.constexpr = C * (D + REALS)
    tiles = (m + C - 1) // C
    index = index_bits(m)
    lane = tl.arange(0, C)
    for k0 in range(0, count, R):
        k = k0 + tl.arange(0, R)
        if FIRST:
            i = tl.minimum(k, m - 1)
        else:
            i = tl.load(words + row_of(tl.minimum(k, count - 1), WORDS) + LIST * C)
        row = reals + row_of(i, D + REALS)
        norm = tl.load(row + (D + NORM) * C)
        half = tl.load(row + (D + HALF) * C)
        xs = ()
        if KEPT:
            xs = load_rows(row, D)
        best = tl.full((R, C), MOST, tl.uint32)
        second = tl.full((R, C), MOST, tl.uint32)
        if FIRST:
            low = k0 // C
            high = low
        else:  # the list ascends
            low = tl.min(i, 0) // C
            high = tl.max(i, 0) // C
        width = high - low + 1  # of the tiles that the rows themselves are in, and have to be told from
        for t in range(tiles - width):
            tile = t + tl.where(t >= low, width, 0)
            score = negative_costs(xs, row, reals + tile * TILE + lane, norm, half, D, KEPT, FIRST, PTX)
            key = keys_of(score, lane + tile * C, index, PTX)
            second = tl.minimum(second, tl.maximum(best, key))
            best = tl.minimum(best, key)
        for tile in range(low, high + 1):
            score = negative_costs(xs, row, reals + tile * TILE + lane, norm, half, D, KEPT, FIRST, PTX)
            key = keys_of(score, lane + tile * C, index, PTX)
            key = tl.where(i[:, None] == (lane + tile * C)[None, :], MOST, key)
            second = tl.minimum(second, tl.maximum(best, key))
            best = tl.minimum(best, key)
        store_nearest(reals, words, i, norm, half, best, second, index, noise, D, FIRST)


@triton.jit
def store_nearest(
    reals, words, i, norm, half, best, second, index, noise, D: tl.constexpr, FIRST: tl.constexpr
):
    """Store what a scan tells of rows i [R], from the two lowest keys of every lane [R, C].

    The lowest keys come out one after the other. A lane that is out of keys gives its last again, so the
    bound of those that are not tracked may be too low, never too high.
    """
    row = reals + row_of(i, D + REALS)
    word = words + row_of(i, WORDS)
    low = tl.min(best, 1)
    lowest = low
    next_low = low
    for t in tl.static_range(TRACKS + 1):
        if t > 0:
            low = tl.min(best, 1)
        if t == 1:
            next_low = low
        if t < TRACKS:
            position = low.to(tl.int32, bitcast=True) & index
            tl.store(word + (TRACKED + t) * C, tl.where(low < NONE, position, -1))
            if t == 0:
                tl.store(word + NEAR * C, position)
            best = tl.where(best == low[:, None], second, best)
    cost = tl.maximum(cost_of(lowest, index), 0.0)
    next_cost = cost_of(next_low, index)
    others = tl.maximum(cost_of(low, index), 0.0)
    spread = 2 * tl.sqrt(-norm / half)  # twice |a| sqrt(size)
    top = cost * (1 + 1.1920929e-7 * (index + 1).to(tl.float32))  # the key's last bits are lost
    root = spread + tl.sqrt(top)
    off = error(root, half, noise, D)
    limit = top + 2.02 * off
    tl.store(row + (D + LOW) * C, tl.maximum(cost - off, 0.0))
    root = spread + tl.sqrt(others)
    others = others - error(root, half, noise, D)
    tl.store(row + (D + OTHERS) * C, tl.where(low < NONE, others, float("inf")))
    clear = (next_cost > limit) | (next_low >= NONE)
    if FIRST:
        clear = clear & (cost > off)  # else they may be equal points
    tl.store(row + (D + LIMIT) * C, tl.where(clear, DECIDED, limit))
