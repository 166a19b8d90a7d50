"""Link many problems by Ward on the device of their points: the host side of the kernels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .launch import (
    EXACT,
    SCRATCH,
    Chip,
    chip_of,
    device_guard,
    line_tile,
    on_device,
    padded,
    rule_tile,
    ward_tile,
)
from .line import line_kernel
from .rule import rule_kernel
from .state import REALS, WORDS, C
from .ward import ON, OWN, PROBLEM, SCALES, STATUS, WHOLE, ward_kernel


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

    def places(self) -> list[int]:
        """Return where the results of every table begin."""
        ends = np.cumsum([n * count for n, count in zip(self.sizes, self.counts, strict=True)])
        return [0, *ends[:-1].tolist()] if self.sizes else []


@dataclass(frozen=True)
class Part:
    """Problems `begin .. begin + count - 1` of a table."""

    table: int
    begin: int
    count: int


def link(
    tables: Sequence[Tensor],
    merges: Sequence[int] | None = None,
    cuts: Tensor | None = None,
    scratch: int = SCRATCH,
) -> Trees:
    """Compute Ward's dendrograms of tables [I, n, d]: I problems of n points each; trusts its arguments.

    Equal to the last bit to those of the other backends. One launch, or two, for all tables of the same d,
    type and tile whose state fits `scratch` bytes, larger problems first, and no synchronisation.

    Args:
        tables: float32 or float64, finite, any strides, on one device.
        merges: of each table, if only the tree up to its cut is wanted: the largest height at which any of
            its problems makes so many merges.
        cuts: int64 [tables], with `merges`: to be raised to the bits of these heights where there are
            merges.
    """
    device = tables[0].device
    sizes, counts = [t.shape[1] for t in tables], [t.shape[0] for t in tables]
    total = sum(n * count for n, count in zip(sizes, counts, strict=True))
    trees = Trees(
        sizes,
        counts,
        torch.empty((total, 3), dtype=torch.int32, device=device),
        torch.empty(total, dtype=torch.float64, device=device),
    )
    if cuts is None:
        cuts = torch.zeros(len(tables), dtype=torch.int64, device=device)
    alike: dict[tuple[object, ...], list[int]] = {}
    for k in sorted(range(len(tables)), key=lambda k: -sizes[k]):
        how = _tile(sizes[k], tables[k].shape[2], chip_of(device))
        alike.setdefault((tables[k].shape[2], tables[k].dtype, *how.values()), []).append(k)
    for same in alike.values():
        for parts, whole in _chunks(tables, same, scratch):
            chunk = _Chunk(tables, parts, merges, trees, cuts)
            for phase in (WHOLE,) if whole or merges is None or chunk.d == 1 else (OWN, ON):
                chunk.launch(phase)
    return trees


def _chunks(tables: Sequence[Tensor], same: Sequence[int], scratch: int) -> list[tuple[list[Part], bool]]:
    """Return parts whose state fits together, and whether whole trees are needed.

    They are for a table that is in two chunks, because it has no cut before both are done.
    """
    chunks: list[tuple[list[Part], bool]] = []
    some: list[Part] = []
    room = scratch
    for k in same:
        count, n, d = tables[k].shape
        own = bytes_of(n, d)
        if count * own > scratch:  # alone
            fit = max(1, scratch // own)
            chunks += [([Part(k, b, min(fit, count - b))], fit < count) for b in range(0, count, fit)]
            continue
        if count * own > room:
            chunks.append((some, False))
            some, room = [], scratch
        if count > 0:
            some.append(Part(k, 0, count))
        room -= count * own
    return [*chunks, (some, False)] if some else chunks


def _tile(n: int, d: int, chip: Chip) -> dict[str, Any]:
    return line_tile(n, chip) if d == 1 else ward_tile(n, d, chip)


def bytes_of(n: int, d: int) -> int:
    """Return the bytes of the state of one problem."""
    words: int = d + REALS.value + WORDS.value
    return 4 * padded(n, C.value) * words + 8 * d * (n + 2)


def orders_of(tables: Sequence[Tensor], parts: Sequence[Part]) -> list[Tensor]:
    """Sort problems of one coordinate: which point comes where, int64 [count, N >= n], equal ones by number.

    Problems of about as many points, up to a power of two, are sorted in one go, and infinities beside them.
    """
    rooms = [1 << (tables[part.table].shape[1] - 1).bit_length() for part in parts]
    orders: list[Tensor] = []
    for room, group in itertools.groupby(zip(rooms, parts, strict=True), key=lambda pair: pair[0]):
        same = [tables[p.table][p.begin : p.begin + p.count, :, 0] for _, p in group]
        counts = [len(part) for part in same]
        values = same[0].new_full((sum(counts), room), torch.inf)
        for own, part in zip(torch.split(values, counts), same, strict=True):
            own[:, : part.shape[1]] = part + 0.0  # no negative zero: it would come before others
        orders += torch.split(torch.sort(values, dim=1, stable=True).indices, counts)
    return orders


class _Chunk:
    """Problems of one d, type and tile, and their state."""

    def __init__(
        self,
        tables: Sequence[Tensor],
        parts: Sequence[Part],
        merges: Sequence[int] | None,
        trees: Trees,
        cuts: Tensor,
    ) -> None:
        first = tables[parts[0].table]
        self.device, self.d, self.double = first.device, first.shape[2], first.dtype == torch.float64
        self.n = max(trees.sizes[part.table] for part in parts)
        rows, position, places, points = [], 0, trees.places(), 0
        self.orders = orders_of(tables, parts) if self.d == 1 else []
        for number, part in enumerate(parts):
            table, n, each = tables[part.table], trees.sizes[part.table], np.arange(part.count)
            own = np.empty((part.count, PROBLEM.value), np.int64)  # as ward_kernel reads them
            own[:, 0] = table.data_ptr() + (part.begin + each) * (table.stride(0) * table.element_size())
            own[:, 1:3] = table.stride()[1:]
            own[:, 3] = part.table
            own[:, 4] = n
            own[:, 5] = places[part.table] + (part.begin + each) * n
            own[:, 6] = position + each * padded(n, C.value)
            own[:, 7] = 0 if merges is None else merges[part.table]
            own[:, 8] = (points + each * (n + 2)) * self.d
            if self.d == 1:
                order = self.orders[number]
                own[:, 9] = order.data_ptr() + each * (8 * order.stride(0))
            position += part.count * padded(n, C.value)
            points += part.count * (n + 2)
            rows.append(own)
        problems = np.concatenate(rows)
        self.count = len(problems)

        def scratch(numbers: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(numbers, dtype=dtype, device=self.device)

        self.given = (
            on_device(problems, "int64", self.device),
            scratch(position * (self.d + REALS.value), torch.float32),
            scratch(position * WORDS.value, torch.int32),
            scratch(points * self.d, torch.float64),
            scratch(self.count * STATUS.value, torch.int32),
            scratch(self.count * SCALES.value, torch.float64),
            trees.links,
            trees.heights,
            cuts,
        )

    def launch(self, phase: object) -> None:
        """Launch a phase of kernels/ward.py, and the rule for what it gives up."""
        chip, grid = chip_of(self.device), (self.count,)
        same = {"DOUBLE": self.double, "D": self.d, **EXACT}
        number = phase.value  # type: ignore[attr-defined]
        kernel = line_kernel if self.d == 1 else ward_kernel
        with device_guard(self.device):
            kernel[grid](*self.given, number, **same, **_tile(self.n, self.d, chip))
            rule_kernel[grid](*self.given, number, **same, **rule_tile(chip))


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
