"""What follows from merges: cuts, labels and scipy's dendrograms, without a loop over problems or merges.

Merges are given as :class:`reprune.kernels.rounds.Merges`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .rounds import Merges, precise, ward


@dataclass(frozen=True, eq=False)
class Clustered:
    """A layer that is cut; all on the device."""

    labels: Tensor
    """int32 [sum of I, O], contiguous, numbered from 0 by first appearance."""
    clusters: Tensor
    """int32 [sum of I]"""
    heights: Tensor
    """[tables]"""


def cluster_layers(layers: Sequence[tuple[Sequence[Tensor], int]]) -> list[Clustered]:
    """Layers of (tables [I, O, d], filters to keep < O) -> clusters at the cut of every table (Eq. 5).

    Tables of one (O, d) and dtype share a launch. Nothing waits for the device.
    """
    groups: dict[tuple[int, int, torch.dtype], list[Tensor]] = {}
    for tables, _ in layers:
        for table in tables:
            groups.setdefault(_kind(table), []).append(table)
    merged = {
        kind: iter(ward(precise(torch.cat(group))).split([len(table) for table in group]))
        for kind, group in groups.items()
    }
    results = []
    for tables, keep in layers:
        labels, clusters, heights = [], [], []
        for table in tables:
            merges = next(merged[_kind(table)])
            cut = merges.height.kthvalue(table.shape[1] - keep, dim=1).values.max()
            found, count = labels_at(merges, cut)
            labels.append(found)
            clusters.append(count)
            heights.append(cut)
        results.append(Clustered(torch.cat(labels), torch.cat(clusters), torch.stack(heights)))
    return results


def _kind(table: Tensor) -> tuple[int, int, torch.dtype]:
    return table.shape[1], table.shape[2], table.dtype


def labels_at(merges: Merges, cut: Tensor) -> tuple[Tensor, Tensor]:
    """A cut, or one per problem [B, 1] -> labels int32 [B, n] by first appearance, clusters int32 [B]."""
    parent = merges.parent.long()
    own = torch.arange(parent.shape[1], device=parent.device).expand(parent.shape)
    root = torch.where(merges.height <= cut, parent, own)
    for _ in range(parent.shape[1].bit_length()):  # twice as far up each time
        root = root.gather(1, root)
    first = root == own  # the smallest index of a cluster
    number = first.cumsum(dim=1) - 1
    return number.gather(1, root).int(), first.sum(dim=1, dtype=torch.int32)


def dendrogram(merges: Merges) -> Tensor:
    """float64 Z [B, n-1, 4] in scipy's form."""
    B, n = merges.parent.shape
    rounds = merges.turn.sort(dim=1, stable=True)[1]  # among equal heights, parts come first
    order = rounds.gather(1, merges.height.gather(1, rounds).sort(dim=1, stable=True)[1])[:, :-1]
    gone, kept = order, merges.parent.long().gather(1, order)
    row = torch.arange(n - 1, device=order.device).expand(B, n - 1)
    # A cluster has the number of the last row that its point survived. Sorted by (point, row, use before
    # survival), that row comes right before the use.
    key = torch.cat([kept, gone, kept], dim=1) * (2 * n) + torch.cat([2 * row, 2 * row, 2 * row + 1], dim=1)
    events, where = key.sort(dim=1)
    point, before = events // (2 * n), events.roll(1, dims=1)
    again = before // (2 * n) == point
    again[:, :1] = False
    number = torch.where(again, n + before % (2 * n) // 2, point)
    ids = torch.empty_like(number).scatter_(1, where, number)
    pair = torch.stack([ids[:, : n - 1], ids[:, n - 1 : 2 * n - 2]], dim=2).sort(dim=2)[0]
    rest = torch.stack([merges.height.gather(1, order), merges.size.gather(1, order)], dim=2)
    return torch.cat([pair.double(), rest.double()], dim=2)
