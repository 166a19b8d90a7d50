"""Cluster every channel of many layers at each layer's common cut: linkage and cut on the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .cut import label_kernel
from .launch import EXACT, SCRATCH, chip_of, device_guard, label_tile, on_device
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
    layers: Sequence[tuple[Sequence[Tensor], int]], scratch: int = SCRATCH
) -> list[LayerClusters]:
    """Clusters of layers (tables [I, O, d], keep), 1 <= keep <= O; trusts its arguments.

    The cut of a table is the largest height at which any of its problems makes its `O - keep`-th merge
    (REPrune, Eq. 5); minus infinity for `keep == O`, where every kernel is its own cluster. Started on
    the current stream and not waited for. `scratch` as in :func:`reprune.kernels.linkage.link`.
    """
    tables = [table for own, _ in layers for table in own]
    if not tables:
        return []
    device = tables[0].device
    merges = [own[0].shape[1] - keep for own, keep in layers for _ in own]
    cuts = on_device(np.where(np.array(merges) == 0, NEVER, 0), "int64", device)
    trees = link(tables, merges, cuts, scratch)
    total = sum(trees.counts)
    clusters = torch.empty(total, dtype=torch.int32, device=device)
    labels = torch.empty(len(trees.heights), dtype=torch.int32, device=device)
    numbers = np.cumsum([0, *trees.counts])
    alike: dict[tuple[int, ...], list[int]] = {}
    for k in sorted(range(len(tables)), key=lambda k: -trees.sizes[k]):
        alike.setdefault(tuple(label_tile(trees.sizes[k], chip_of(device)).values()), []).append(k)
    places = trees.places()
    for same in alike.values():
        rows = []
        for k in same:
            n, each = trees.sizes[k], np.arange(trees.counts[k])
            own = np.empty((len(each), 4), np.int64)  # as label_kernel reads them
            own[:, 0] = n
            own[:, 1] = places[k] + each * n
            own[:, 2] = k
            own[:, 3] = numbers[k] + each
            rows.append(own)
        problems = np.concatenate(rows)
        if len(problems) == 0:
            continue
        how = {**EXACT, **label_tile(trees.sizes[same[0]], chip_of(device))}
        with device_guard(device):
            label_kernel[len(problems),](
                on_device(problems, "int64", device),
                trees.links,
                trees.heights,
                cuts,
                labels,
                clusters,
                **how,
            )
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
