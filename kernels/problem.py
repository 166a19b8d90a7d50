# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
"""Read in a kernel what kernels/parts.py wrote about a program's problem."""

import triton
import triton.language as tl

from . import parts as columns
from .state import C

ADDRESS = tl.constexpr(columns.ADDRESS)
STEP = tl.constexpr(columns.STEP)
POINT = tl.constexpr(columns.POINT)
COORDINATE = tl.constexpr(columns.COORDINATE)
TABLE = tl.constexpr(columns.TABLE)
POINTS = tl.constexpr(columns.POINTS)
MERGES = tl.constexpr(columns.MERGES)
BEGIN = tl.constexpr(columns.BEGIN)
POSITION = tl.constexpr(columns.POSITION)
TOTAL = tl.constexpr(columns.TOTAL)
ORDER = tl.constexpr(columns.ORDER)
ROOM = tl.constexpr(columns.ROOM)
NUMBER = tl.constexpr(columns.NUMBER)
PART = tl.constexpr(columns.PART)


@triton.jit
def part_of(parts, programs, program):
    """Return the row of the program's part, the number of its problem there, and how many points it has."""
    programs += 2 * program.to(tl.int64)
    part = parts + PART * tl.load(programs)
    return part, tl.load(programs + 1).to(tl.int64), tl.load(part + POINTS).to(tl.int32)


@triton.jit
def places_of(part, k, n):
    """Return where the results of problem k of a part begin, its state's positions, and its totals."""
    begin = tl.load(part + BEGIN) + k * n
    position = tl.load(part + POSITION) + k * ((n + C - 1) // C * C)
    return begin, position, tl.load(part + TOTAL) + k * (n + 2)


@triton.jit
def source_of(part, k, DOUBLE: tl.constexpr):
    """Return the first point of problem k of a part, and the numbers to the next point and coordinate."""
    address = tl.load(part + ADDRESS) + k * tl.load(part + STEP)
    source = address.to(tl.pointer_type(tl.float64 if DOUBLE else tl.float32))
    return source, tl.load(part + POINT), tl.load(part + COORDINATE)
