"""Divide the problems of many tables into launches, and write what kernels read about them.

A *part* is a run of problems of one table, described by one row of int64 numbers; a *program* of a kernel
knows its part and which problem of the part is its own. So the tables are as short as the list of layers, and
kernels do the rest of the arithmetic.

==================  ====================================================================================
`parts`             int64 [parts, 13]:
ADDRESS, STEP       of the first problem's first point, and bytes from one problem to the next
POINT, COORDINATE   numbers from one point to the next, and from one coordinate to the next
TABLE               the table, by whose number its cut is found
POINTS, MERGES      points of a problem, and merges that each makes at least
BEGIN               where the results of the first problem begin; a problem has as many places as points
POSITION, TOTAL     where its state begins, in positions and in totals (kernels/state.py)
ORDER, ROOM         where the order of its points begins, and numbers from one order to the next (d = 1)
NUMBER              the number of the first problem among all
`programs`          int32 [programs, 2]: the part, and which of its problems
==================  ====================================================================================

All of this but the addresses follows from shapes, and is kept: a model's layers are selected from again and
again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .launch import Chip, line_tile, padded, ward_tile
from .state import REALS, WORDS, C

ADDRESS, STEP, POINT, COORDINATE, TABLE, POINTS, MERGES = range(7)
BEGIN, POSITION, TOTAL, ORDER, ROOM, NUMBER, PART = range(7, 14)

KEPT = 16
"""Divisions that are kept, about 10 bytes for each channel of a network."""


class Shape(NamedTuple):
    """How a table [I, n, d] lies in memory."""

    problems: int
    points: int
    d: int
    steps: tuple[int, int, int]
    """Numbers from one problem, point and coordinate to the next."""
    double: bool

    @classmethod
    def of(cls, table: Tensor) -> Shape:
        """Return that of a table, float32 or float64."""
        problems, points, d = table.shape
        first, second, third = table.stride()
        return cls(problems, points, d, (first, second, third), table.dtype == torch.float64)


@dataclass(frozen=True)
class Chunk:
    """Problems whose state is in memory at once, as a run of programs."""

    begin: int
    end: int
    whole: bool
    """Whether whole trees are needed: a table in several chunks has no cut before all are done."""
    rooms: tuple[tuple[int, int], ...]
    """Problems, and numbers from one order to the next, one after the other."""


@dataclass(frozen=True)
class Group:
    """Tables that may share launches: of one d, type and tile, those with more points first."""

    tables: list[int]
    chunks: list[Chunk]
    points: int
    """Of a problem, at most."""
    d: int
    double: bool
    tile: dict[str, Any]
    """How the linkage is launched."""

    @property
    def programs(self) -> tuple[int, int]:
        """Return its first program, and the one after its last."""
        return (self.chunks[0].begin, self.chunks[-1].end) if self.chunks else (0, 0)


@dataclass(frozen=True, eq=False)
class Division:
    """All launches, in order, and what kernels read."""

    groups: list[Group]
    parts: npt.NDArray[np.int64]
    """With the first problem's distance from the beginning of its table for the address."""
    programs: npt.NDArray[np.int32]
    positions: int
    """Of the state of a chunk, at most."""
    totals: int
    """The same: points, and two for each problem."""

    def placed(self, tables: Sequence[Tensor]) -> npt.NDArray[np.int64]:
        """Return `parts` with the addresses of tables."""
        parts: npt.NDArray[np.int64] = self.parts.copy()
        parts[:, ADDRESS] += np.array([table.data_ptr() for table in tables], np.int64)[parts[:, TABLE]]
        return parts


@lru_cache(maxsize=KEPT)
def divide(
    shapes: tuple[Shape, ...],
    merges: tuple[int, ...] | None,
    urgency: tuple[float, ...] | None,
    scratch: int,
    chip: Chip,
) -> Division:
    """Divide tables into groups, and these into chunks whose state fits `scratch` bytes.

    Groups with the most urgent table come first (without `urgency` those with more points), and in a group
    tables with more points: the longest programs of a launch begin first.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    for k in sorted(range(len(shapes)), key=lambda k: -shapes[k].points):
        own = shapes[k]
        alike.setdefault((own.d, own.double, *_tile(own, chip).values()), []).append(k)
    gathered = list(alike.values())
    if urgency is not None:
        gathered.sort(key=lambda tables: -max(urgency[k] for k in tables))
    runs: list[tuple[int, int, int, int]] = []  # table, first problem, problems, chunk
    groups, chunk, begin = [], 0, 0
    for tables in gathered:
        chunks = []
        for some, whole in _chunks(shapes, tables, scratch):
            problems = sum(part[2] for part in some)
            rooms = tuple((part[2], _room(shapes[part[0]].points)) for part in some)
            chunks.append(Chunk(begin, begin + problems, whole, rooms))
            runs += [(*part, chunk) for part in some]
            begin, chunk = begin + problems, chunk + 1
        one = shapes[tables[0]]
        groups.append(Group(tables, chunks, one.points, one.d, one.double, _tile(one, chip)))
    return Division(groups, *_rows(shapes, merges, runs))


def _rows(
    shapes: Sequence[Shape], merges: Sequence[int] | None, runs: list[tuple[int, int, int, int]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], int, int]:
    """Return the parts, the programs, and the most positions and totals of a chunk."""
    known = [(s.problems, s.points, s.steps[0] * (8 if s.double else 4), *s.steps[1:]) for s in shapes]
    problems, points, step, point, coordinate = np.array(known, np.int64).reshape(-1, 5).T
    t, first, count, chunk = np.array(runs, np.int64).reshape(-1, 4).T
    n = points[t]
    parts = np.zeros((len(t), PART), np.int64)
    parts[:, ADDRESS] = first * step[t]
    parts[:, STEP], parts[:, POINT], parts[:, COORDINATE] = step[t], point[t], coordinate[t]
    parts[:, TABLE], parts[:, POINTS] = t, n
    if merges is not None:
        parts[:, MERGES] = np.array(merges, np.int64)[t]
    parts[:, BEGIN] = (np.cumsum(points * problems) - points * problems)[t] + first * n
    parts[:, NUMBER] = (np.cumsum(problems) - problems)[t] + first
    parts[:, ROOM] = [_room(k) for k in n.tolist()]
    ends = []
    for column, each in ((POSITION, -(-n // C.value) * C.value), (TOTAL, n + 2), (ORDER, parts[:, ROOM])):
        starts = np.cumsum(count * each) - count * each
        parts[:, column] = starts - starts[np.searchsorted(chunk, chunk)]
        ends.append(int((parts[:, column] + count * each).max(initial=0)))
    programs = np.empty((int(count.sum()), 2), np.int32)
    programs[:, 0] = np.repeat(np.arange(len(t)), count)
    programs[:, 1] = np.arange(len(programs)) - np.repeat(np.cumsum(count) - count, count)
    return parts, programs, ends[0], ends[1]


def _chunks(
    shapes: Sequence[Shape], tables: Sequence[int], scratch: int
) -> Iterator[tuple[list[tuple[int, int, int]], bool]]:
    """Yield parts (table, first problem, problems) whose state fits together, and whether trees are whole."""
    some: list[tuple[int, int, int]] = []
    room = scratch
    for k in tables:
        problems, own = shapes[k].problems, bytes_of(shapes[k].points, shapes[k].d)
        if problems * own > scratch:  # alone
            fit = max(1, scratch // own)
            for begin in range(0, problems, fit):
                yield [(k, begin, min(fit, problems - begin))], fit < problems
            continue
        if problems * own > room:
            yield some, False
            some, room = [], scratch
        if problems > 0:
            some.append((k, 0, problems))
        room -= problems * own
    if some:
        yield some, False


def _tile(shape: Shape, chip: Chip) -> dict[str, Any]:
    return line_tile(shape.points, chip) if shape.d == 1 else ward_tile(shape.points, shape.d, chip)


def _room(n: int) -> int:
    """Return the power of two that n points are sorted in."""
    return 1 << (n - 1).bit_length()


def bytes_of(n: int, d: int) -> int:
    """Return the bytes of the state of one problem."""
    words: int = d + REALS.value + WORDS.value
    return 4 * padded(n, C.value) * words + 8 * d * (n + 2)
