# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
"""Nearest neighbours by Ward's cost, of listed rows among all clusters: the inner loop of kernels/ward.py."""

import triton
import triton.language as tl


@triton.jit
def gap(square, r):
    """`square / r`, where r = 1/|A| + 1/|B|: Ward's cost |A||B|/(|A|+|B|) * ||m_A - m_B||^2.

    A division would cost as much as the distance. float32: the square of the reciprocal root, to 2 ulp.
    float64: that, and two Newton steps. The same for (A, B) and (B, A), bit by bit.
    """
    w = tl.rsqrt(r.to(tl.float32))
    if square.dtype == tl.float32:
        cost = square * w * w
    else:
        y = (w * w).to(tl.float64)
        y = y * (2 - r * y)
        y = y * (2 - r * y)
        cost = square * y
    return cost


@triton.jit  # type: ignore[untyped-decorator]
def at(p, ROWS: tl.constexpr, C: tl.constexpr):
    """Where position p lies in row 0 of its tile [ROWS, C]; row r lies r * C further on."""
    return (p & -C) * (ROWS - 1) + p


@triton.jit  # type: ignore[untyped-decorator]
def load_rows(own, D: tl.constexpr, C: tl.constexpr):
    xs = ()
    for c in tl.static_range(D):
        xs = xs + (tl.load(own + c * C),)  # type: ignore[assignment]  # noqa: RUF005
    return xs


@triton.jit  # type: ignore[untyped-decorator]
def scan_block(reals, i, m, D: tl.constexpr, R: tl.constexpr, C: tl.constexpr, TIES: tl.constexpr):
    """Nearest neighbours and costs of rows i [R]; ties by the smaller `i ^ j` (TIES) or the smaller j."""
    best = tl.full((R, C), float("inf"), reals.dtype.element_ty)
    key = tl.full((R, C), 0x7FFFFFFF, tl.int32)
    # registers have room for the coordinates of a tile's rows
    KEPT: tl.constexpr = D * reals.dtype.element_ty.primitive_bitwidth <= 576
    row = reals + at(i, D + 4, C)
    ri = tl.load(row + (D + 1) * C)
    if KEPT:
        xs = load_rows(row, D, C)
    for j0 in range(0, m, C):
        j = j0 + tl.arange(0, C)
        column = reals + j0 * (D + 4) + tl.arange(0, C)
        if KEPT:
            step = xs[0][:, None] - tl.load(column)[None, :]
            square = step * step
            for c in tl.static_range(1, D):
                step = xs[c][:, None] - tl.load(column + c * C)[None, :]
                square += step * step
        else:
            square = tl.zeros((R, C), reals.dtype.element_ty)
            for c in range(D):
                step = tl.load(row + c * C)[:, None] - tl.load(column + c * C)[None, :]
                square += step * step
        cost = gap(square, ri[:, None] + tl.load(column + (D + 1) * C)[None, :])
        if TIES:
            k = i[:, None] ^ j[None, :]
            better = (k != 0) & ((cost < best) | ((cost == best) & (k < key)))
        else:
            k = tl.broadcast_to(j[None, :], (R, C))
            better = (i[:, None] != j[None, :]) & (cost < best)
        best = tl.where(better, cost, best)
        key = tl.where(better, k, key)
    low = tl.min(best, 1)
    k = tl.min(tl.where(best == low[:, None], key, 0x7FFFFFFF), 1)
    if TIES:
        k = i ^ k
    return k, low


@triton.jit  # type: ignore[untyped-decorator]
def scan(reals, words, count, m, ties, D: tl.constexpr, R: tl.constexpr, C: tl.constexpr):
    """Nearest neighbours of the `count` listed rows and their costs.

    State as in kernels/ward.py.
    """
    for k0 in range(0, count, R):
        k = k0 + tl.arange(0, R)
        i = tl.load(words + at(k, 5, C) + 4 * C, mask=k < count, other=0)
        if ties != 0:
            j, low = scan_block(reals, i, m, D, R, C, True)
        else:
            j, low = scan_block(reals, i, m, D, R, C, False)
        tl.store(words + at(i, 5, C), j, mask=k < count)
        tl.store(reals + at(i, D + 4, C) + (D + 2) * C, low, mask=k < count)
