"""Clusters of every channel of many layers at their common cut: linkage and cut on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .cut import height_kernel, label_kernel
from .launch import cut_shape, on, on_device
from .linkage import link

NEVER = -(1 << 52)
"""The bits of minus infinity in float64, as int64."""


@dataclass(frozen=True, eq=False)
class LayerClusters:
    """Clusters of one layer; its tables stand one after the other."""

    labels: Tensor
    """int32 [sum of I, O], contiguous: from 0, by first appearance."""
    clusters: Tensor
    """int32 [sum of I]: how many."""
    heights: Tensor
    """float64 [tables]: the cut of each."""


def cluster_layers(
    layers: Sequence[tuple[Sequence[Tensor], int]], precision: str = "auto"
) -> list[LayerClusters]:
    """Clusters of layers (tables [I, O, d], keep), 1 <= keep <= O <= 4096; trusts its arguments.

    The cut of a table is the largest height at which any of its problems makes its ``O - keep``-th merge
    (REPrune, Eq. 5); minus infinity for ``keep == O``, where every kernel is its own cluster. Started on
    the current stream and not waited for. ``precision`` as in :func:`reprune.kernels.linkage.link`.
    """
    tables = [table for own, _ in layers for table in own]
    if not tables:
        return []
    keeps = [keep for own, keep in layers for _ in own]
    device = tables[0].device
    trees = link(tables, precision)
    sizes, places, owners, merges, place = [], [], [], [], 0
    for k, (n, count) in enumerate(zip(trees.sizes, trees.counts, strict=True)):
        sizes += [n] * count
        places += [place + b * n for b in range(count)]
        owners += [k] * count
        merges += [n - keeps[k]] * count
        place += n * count
    clusters = torch.empty(len(sizes), dtype=torch.int32, device=device)
    labels = torch.empty(place, dtype=torch.int32, device=device)
    cuts = torch.zeros(len(tables), dtype=torch.int64, device=device)
    words = [on_device(values, "int32", device) for values in (sizes, owners, merges)]
    begins = on_device(places, "int64", device)
    first = 0
    for n, count, keep in _runs(trees.sizes, trees.counts, keeps):
        part = slice(first, first + count)
        first += count
        how = cut_shape(n)
        size, owner, merge, begin = words[0][part], words[1][part], words[2][part], begins[part]
        if keep == n:
            cuts[owner.long()] = NEVER
        with on(device):
            if keep < n:
                height_kernel[(count,)](trees.tops, cuts, size, begin, owner, merge, **how)
            count_of = clusters[part]
            label_kernel[(count,)](trees.up, trees.tops, cuts, labels, count_of, size, begin, owner, **how)
    heights = cuts.view(torch.float64)
    results, problem, place, table = [], 0, 0, 0
    for own, _ in layers:
        O, count = own[0].shape[1], sum(len(t) for t in own)
        results.append(
            LayerClusters(
                labels[place : place + count * O].view(count, O),
                clusters[problem : problem + count],
                heights[table : table + len(own)],
            )
        )
        problem, place, table = problem + count, place + count * O, table + len(own)
    return results


def _runs(sizes: Sequence[int], counts: Sequence[int], keeps: Sequence[int]) -> list[tuple[int, int, int]]:
    """(points, problems, keep) of every table that has problems."""
    return [(n, count, keep) for n, count, keep in zip(sizes, counts, keeps, strict=True) if count]
