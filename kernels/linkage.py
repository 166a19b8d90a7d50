"""Link many problems by Ward on the device of their points: the host side of the kernels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .launch import EXACT, SCRATCH, Words, chip_of, device_guard, launch, rule_tile
from .line import line_kernel, spread_kernel
from .parts import Chunk, Group, Shape, divide
from .rule import rule_kernel
from .state import REALS, WORDS
from .ward import ON, OWN, SCALES, STATUS, WHOLE, ward_kernel


@dataclass(frozen=True, eq=False)
class Trees:
    """Dendrograms of all problems of a list of tables, one after the other; n points have n places.

    A cluster goes by the largest number of its points; point k is the last of the clusters that are merged
    into others as k.
    """

    sizes: list[int]
    """Points of a problem of every table."""
    counts: list[int]
    """Problems of every table."""
    links: Tensor
    """int32 [places, 3], for each problem [3, n]: the cluster that cluster k is merged into, the points of
    both, and a number by which merges of one height are ordered. Undefined for n - 1 and where `heights` is
    infinite, but for the first, which is k."""
    heights: Tensor
    """float64 [places]: the height of this merge; infinity for k = n - 1, and for merges that were not made,
    as they lie above the cut."""


class Linkage:
    """Ward's linkage of many tables [I, n, d], I problems of n points each, group by group.

    The dendrograms equal those of other backends to the last bit. Tables of the same d, type and tile are a
    group: one launch, or two, for all whose state fits `scratch` bytes. Nothing waits.

    Args:
        tables: float32 or float64, finite, any strides, on one device; they are not checked, and kept.
        merges: of each table, if only the tree up to its cut is wanted: the largest height at which any of
            its problems makes so many merges.
        scratch: bytes of the state of the problems of one launch, at most, unless one alone needs more.
        urgency: of each table; as :func:`reprune.kernels.parts.divide` has it.
    """

    def __init__(
        self,
        tables: Sequence[Tensor],
        merges: Sequence[int] | None = None,
        scratch: int = SCRATCH,
        urgency: Sequence[float] | None = None,
    ) -> None:
        self.tables, self.device, self._cutting = tables, tables[0].device, merges is not None
        shapes = tuple(map(Shape.of, tables))
        self.division = divide(
            shapes,
            None if merges is None else tuple(merges),
            None if urgency is None else tuple(urgency),
            scratch,
            chip_of(self.device),
        )
        sizes, counts = [s.points for s in shapes], [s.problems for s in shapes]
        total = sum(s.points * s.problems for s in shapes)
        self.trees = Trees(sizes, counts, self._new((total, 3), torch.int32), self._new(total, torch.float64))

    def _new(self, shape: int | tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)

    @property
    def words(self) -> int:
        """How many words :meth:`put` puts."""
        return self.division.parts.size + len(self.division.programs)

    def put(self, words: Words) -> None:
        """Put what kernels read of the problems."""
        self.parts = words.put(self.division.placed(self.tables))
        self.programs = words.put(self.division.programs.view(np.int64)).view(torch.int32)

    def allocate(self, cuts: Tensor) -> None:
        """Allocate the state; `cuts` int64 [tables] will be raised to the bits of the heights."""
        division = self.division
        d = max(group.d for group in division.groups)
        most = max((c.end - c.begin for group in division.groups for c in group.chunks), default=0)
        self.given = (
            self.parts,
            self.programs,
            self._new(division.positions * (d + REALS.value), torch.float32),
            self._new(division.positions * WORDS.value, torch.int32),
            self._new(division.totals * d, torch.float64),
            self._new(most * STATUS.value, torch.int32),
            self._new(most * SCALES.value, torch.float64),
            self.trees.links,
            self.trees.heights,
            cuts,
        )

    def run(self, group: Group) -> None:
        """Start the linkage of a group on the current device, all groups on one stream."""
        same = {"DOUBLE": group.double, "D": group.d, **EXACT}
        how, rule = {**same, **group.tile}, {**same, **rule_tile(chip_of(self.device))}
        for chunk in group.chunks:
            given: tuple[Tensor, ...] = self.given
            if group.d == 1:
                given = (*given, self._sort(chunk, group))
            kernel = line_kernel if group.d == 1 else ward_kernel
            for phase in (WHOLE,) if chunk.whole or not self._cutting or group.d == 1 else (OWN, ON):
                last = chunk.begin, phase.value
                launch(kernel, chunk.end - chunk.begin, (*given, *last), how, self.device)
                launch(rule_kernel, chunk.end - chunk.begin, (*self.given, *last), rule, self.device)

    def _sort(self, chunk: Chunk, group: Group) -> Tensor:
        """Sort problems of one coordinate: which point comes where, equal ones by number.

        Problems of about as many points, up to a power of two, are sorted in one go, and infinities beside
        them.
        """
        total = sum(count * room for count, room in chunk.rooms)
        numbers = self._new(total, torch.float64 if group.double else torch.float32)
        ascending, orders = torch.empty_like(numbers), self._new(total, torch.int64)
        given = self.parts, self.programs, numbers.view(torch.int32), chunk.begin
        how = {"DOUBLE": group.double, **EXACT, **group.tile}
        launch(spread_kernel, chunk.end - chunk.begin, given, how, self.device)
        begin = 0
        for room, same in itertools.groupby(chunk.rooms, key=lambda pair: pair[1]):
            end = begin + room * sum(count for count, _ in same)
            some, *out = (x[begin:end].view(-1, room) for x in (numbers, ascending, orders))
            torch.sort(some, dim=1, stable=True, out=tuple(out))
            begin = end
        return orders


def link(tables: Sequence[Tensor], scratch: int = SCRATCH) -> Trees:
    """Compute the whole dendrograms of tables, as :class:`Linkage` takes them."""
    linkage = Linkage(tables, scratch=scratch)
    words = Words(linkage.words, len(tables), linkage.device)
    linkage.put(words)
    words.send()
    linkage.allocate(words.room)
    with device_guard(linkage.device):
        for group in linkage.division.groups:
            linkage.run(group)
    return linkage.trees


def ward(points: Tensor) -> Tensor:
    """Return scipy's Z, float64 [B, n-1, 4], of points [B, n, d]: float32 or float64, finite, any strides.

    Merges are in the order of the rule of :mod:`reprune.clustering.reference.linkage`. Nothing waits.
    """
    B, n, _ = points.shape
    if B == 0 or n == 1:
        return torch.empty((B, n - 1, 4), dtype=torch.float64, device=points.device)
    return dendrograms(link([points]))


def dendrograms(trees: Trees) -> Tensor:
    """Return scipy's Z of all problems of the one table that `trees`, whole ones, are of."""
    (B,), (n,) = trees.counts, trees.sizes
    device = trees.heights.device
    into, size, turn = trees.links.view(B, 3, n)[:, :, :-1].long().unbind(1)
    heights = trees.heights.view(B, n)[:, :-1]
    gone = turn.argsort(dim=1, stable=True)  # clusters in the order they are merged into others
    gone = gone.gather(1, heights.gather(1, gone).argsort(dim=1, stable=True))
    kept = into.gather(1, gone)
    rows = torch.arange(n - 1, device=device).expand(B, -1)
    made = torch.full((B, n), -1, dtype=torch.int64, device=device)  # the last row that a cluster grew in
    made.scatter_reduce_(1, kept, rows, "amax")
    by_kept = kept.argsort(dim=1, stable=True)
    ascending = kept.gather(1, by_kept)
    before = torch.full_like(kept, -1)  # the row that the kept one grew in before
    again = torch.where(ascending[:, 1:] == ascending[:, :-1], by_kept[:, :-1], -1)
    before.scatter_(1, by_kept[:, 1:], again)
    made = made.gather(1, gone)
    pairs = torch.stack(
        [torch.where(made >= 0, n + made, gone), torch.where(before >= 0, n + before, kept)], dim=2
    )
    Z = torch.empty((B, n - 1, 4), dtype=torch.float64, device=device)
    Z[:, :, :2] = pairs.sort(dim=2).values
    Z[:, :, 2] = heights.gather(1, gone)
    Z[:, :, 3] = size.gather(1, gone)
    return Z
