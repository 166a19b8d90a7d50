"""Cluster every channel of many layers at each layer's common cut: linkage and cut on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .cut import height_kernel, label_kernel
from .launch import cut_shape, on, on_device
from .linkage import link

NEVER = -(1 << 52)
"""The bits of minus infinity in float64, as int64."""


@dataclass(frozen=True, eq=False)
class LayerClusters:
    """Clusters of one layer, its tables one after the other."""

    labels: Tensor
    """int32 [sum of I, O], contiguous: clusters numbered from 0 by first appearance."""
    clusters: Tensor
    """int32 [sum of I]: the number of clusters."""
    heights: Tensor
    """float64 [tables]: the cut height of each."""


def cluster_layers(
    layers: Sequence[tuple[Sequence[Tensor], int]], precision: str = "auto"
) -> list[LayerClusters]:
    """Cluster layers (tables [I, O, d], keep), 1 <= keep <= O <= 4096; arguments are not checked.

    The cut of a table is the largest height at which any of its problems makes its `O - keep`-th merge
    (REPrune, Eq. 5); minus infinity for `keep == O`, where every kernel is its own cluster. It runs on the
    current stream and is not waited for. `precision` as in :func:`reprune.kernels.linkage.link`.
    """
    tables = [table for own, _ in layers for table in own]
    if not tables:
        return []
    keeps = [keep for own, keep in layers for _ in own]
    device = tables[0].device
    trees = link(tables, precision)
    rows, place, number = [], 0, 0
    for k, (n, count) in enumerate(zip(trees.sizes, trees.counts, strict=True)):
        own = np.empty((count, 5), np.int64)  # as kernels/cut.py reads them
        own[:, 0] = n
        own[:, 1] = place + np.arange(count) * n
        own[:, 2] = k
        own[:, 3] = n - keeps[k]
        own[:, 4] = number + np.arange(count)
        place, number = place + count * n, number + count
        rows.append(own)
    clusters = torch.empty(number, dtype=torch.int32, device=device)
    labels = torch.empty(place, dtype=torch.int32, device=device)
    whole = [keep == n for keep, n in zip(keeps, trees.sizes, strict=True)]
    cuts = on_device(np.where(whole, NEVER, 0), "int64", device)
    table = np.concatenate(rows)
    table = table[np.argsort(table[:, 0], kind="stable")]
    problems = on_device(table, "int64", device)
    begin = 0
    while begin < number:  # all problems of as many points, rounded up to a power of two
        how = cut_shape(int(table[begin, 0]))
        end = int(np.searchsorted(table[:, 0], how["N"], side="right"))
        some, grid = problems[begin:end], (end - begin,)
        with on(device):
            height_kernel[grid](some, trees.tops, cuts, **how)
            label_kernel[grid](some, trees.up, trees.tops, cuts, labels, clusters, **how)
        begin = end
    heights = cuts.view(torch.float64)
    results, problem, place, first = [], 0, 0, 0
    for group, _ in layers:
        O, count = group[0].shape[1], sum(len(t) for t in group)
        results.append(
            LayerClusters(
                labels[place : place + count * O].view(count, O),
                clusters[problem : problem + count],
                heights[first : first + len(group)],
            )
        )
        problem, place, first = problem + count, place + count * O, first + len(group)
    return results
