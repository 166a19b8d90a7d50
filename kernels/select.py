"""Select the filters of many layers on the GPU: linkage, cut and coverage, by groups of alike layers.

The picks of a layer are one block's work, one after the other; meanwhile the next group is linked on the rest
of the GPU. Groups whose picks take longest come first, so that little is left to wait for after the last.
While the first is linked, the host prepares what picks need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .beside import Beside
from .coverage import Coverage, CoverLayer, has_room
from .cut import label_kernel
from .launch import EXACT, SCRATCH, Words, chip_of, device_guard, label_tile, launch
from .linkage import Linkage
from .parts import Group

NEVER = -(1 << 52)
"""The bits of minus infinity in float64, as int64."""


@dataclass(eq=False)
class Layer:
    """One layer, or several that are selected as one; not checked."""

    tables: Sequence[Tensor]
    """Each [I, O, d], float32 or float64, finite, any strides; all of all layers on one device."""
    keep: int
    """1 <= keep <= O."""
    key: int = 0
    """:func:`reprune.clustering.reference.tie_key` of the seed and the layer's name."""
    norms: Tensor | None = None
    """float64 [O], for `ties="norm"`; all layers have them or none has."""

    def __post_init__(self) -> None:
        self.filters = self.tables[0].shape[1]
        self.channels = sum([table.shape[0] for table in self.tables])
        # in proportion to how long picks take: on an H200 about 0.8 us each, and 0.14 us for 1,024 channels
        self.urgency = self.keep * (6 + self.channels / 1024)


@dataclass(frozen=True, eq=False)
class LayerClusters:
    """Clusters of one layer, its tables one after the other."""

    labels: Tensor
    """int32 [sum of I, O], contiguous: clusters numbered from 0 by first appearance."""
    clusters: Tensor
    """int32 [sum of I]: the number of clusters."""
    heights: Tensor
    """float64 [tables]: the cut height of each."""


class Clustering:
    """Clusters of every channel of many layers, at each table's common cut.

    The cut of a table is the largest height at which any of its problems makes its `O - keep`-th merge
    (REPrune, Eq. 5); minus infinity for `keep == O`, where every kernel is its own cluster.
    """

    def __init__(self, layers: Sequence[Layer], scratch: int) -> None:
        tables = [table for layer in layers for table in layer.tables]
        urgency = [layer.urgency for layer in layers for _ in layer.tables]
        merges = [layer.filters - layer.keep for layer in layers for _ in layer.tables]
        self.linkage = Linkage(tables, merges, scratch, urgency)
        self.device = self.linkage.device
        self.table_at = _starts([len(layer.tables) for layer in layers])
        self.channel_at = _starts([layer.channels for layer in layers])
        self.label_at = _starts([layer.channels * layer.filters for layer in layers])
        """Where the tables, channels and labels of every layer begin, and where the last ones end."""
        self.labels = torch.empty(self.label_at[-1], dtype=torch.int32, device=self.device)
        words = Words(self.linkage.words + len(tables), -(-self.channel_at[-1] // 2), self.device)
        self.linkage.put(words)
        self.cuts = words.put(np.array([NEVER if count == 0 else 0 for count in merges]))
        words.send()
        self.linkage.allocate(self.cuts)
        self.results = words.all[-words.room.numel() - len(tables) :]
        """int64: the bits of the heights of every table, and behind them the numbers of clusters (int32)."""
        self.clusters = words.room.view(torch.int32)
        """int32: of every channel, one layer after the other."""

    @property
    def groups(self) -> list[Group]:
        return self.linkage.division.groups

    def run(self, group: Group) -> None:
        """Start linkage and cut of a group, as :meth:`reprune.kernels.linkage.Linkage.run` does."""
        self.linkage.run(group)
        begin, end = group.programs
        how = {**EXACT, **label_tile(group.points, chip_of(self.device))}
        trees = self.linkage.trees
        given = self.linkage.parts, self.linkage.programs, trees.links, trees.heights, self.cuts
        if end > begin:
            launch(label_kernel, end - begin, (*given, self.labels, self.clusters, begin), how, self.device)

    def labels_of(self, layer: int) -> Tensor:
        """Return the labels of a layer, int32 [sum of I, O]."""
        begin, end = self.label_at[layer : layer + 2]
        channels = self.channel_at[layer + 1] - self.channel_at[layer]
        return self.labels[begin:end].view(channels, -1)


def _starts(lengths: Sequence[int]) -> list[int]:
    return list(accumulate(lengths, initial=0))


def cluster_layers(
    layers: Sequence[tuple[Sequence[Tensor], int]], scratch: int = SCRATCH
) -> list[LayerClusters]:
    """Cluster layers (tables, keep), as :class:`Layer` has them.

    Started on the current stream and not waited for. `scratch` as in
    :class:`reprune.kernels.linkage.Linkage`.
    """
    if not layers:
        return []
    own = Clustering([Layer(tables, keep) for tables, keep in layers], scratch)
    with device_guard(own.device):
        for group in own.groups:
            own.run(group)
    heights = own.cuts.view(torch.float64)
    return [
        LayerClusters(
            own.labels_of(k),
            own.clusters[slice(*own.channel_at[k : k + 2])],
            heights[slice(*own.table_at[k : k + 2])],
        )
        for k in range(len(layers))
    ]


@dataclass(frozen=True)
class Found:
    """What was found of a layer, on the host."""

    order: npt.NDArray[np.int64]
    gains: npt.NDArray[np.int64]
    """[keep] each; empty for a layer that the kernel has no room for."""
    clusters: npt.NDArray[np.int32]
    """[sum of I]: the number of clusters."""
    heights: tuple[float, ...]
    """The cut height of each table."""


class Selecting:
    """A selection, started on the current stream and not waited for.

    `core` is `reprune._core`; at least one layer.
    """

    def __init__(self, core: ModuleType, layers: Sequence[Layer], scratch: int = SCRATCH) -> None:
        self.clustering = own = Clustering(layers, scratch)
        self._picked = [k for k, layer in enumerate(layers) if has_room(layer.filters, layer.channels)]
        with device_guard(own.device), Beside(own.device) as beside:
            for number, group in enumerate(own.groups):
                own.run(group)
                if number == 0:
                    self._coverage = self._coverage_of(core, layers)
                beside.follow()
                self._coverage.launch(number, beside.handle)
        self.results = own.results, self._coverage.found
        """int64 each: what :meth:`read` takes."""

    def _coverage_of(self, core: ModuleType, layers: Sequence[Layer]) -> Coverage:
        own = self.clustering
        labels = own.labels.data_ptr()
        covers = []
        for k in self._picked:
            layer = layers[k]
            norms = 0 if layer.norms is None else layer.norms.data_ptr()
            place = labels + 4 * own.label_at[k]
            keep = layer.keep
            covers.append(CoverLayer(place, norms, layer.filters, layer.channels, keep, keep, layer.key))
        return Coverage(core, covers, self._batches(layers), own.device)

    def _batches(self, layers: Sequence[Layer]) -> list[list[int]]:
        """Return which layers can be picked from after each group; those that take longest first."""
        own = self.clustering
        turn = {table: number for number, group in enumerate(own.groups) for table in group.tables}
        batches: list[list[int]] = [[] for _ in own.groups]
        for at, k in sorted(enumerate(self._picked), key=lambda pair: -layers[pair[1]].urgency):
            batches[max(turn[table] for table in range(*own.table_at[k : k + 2]))].append(at)
        return batches

    def read(self, results: Sequence[npt.NDArray[np.int64]]) -> list[Found]:
        """Return what was found of each layer, from copies of `results` on the host."""
        own, at = self.clustering, self._coverage.at
        clustered, picked = results
        tables = own.table_at[-1]
        heights = clustered[:tables].view(np.float64).tolist()
        clusters = clustered[tables:].view(np.int32)
        picks = dict.fromkeys(range(len(own.table_at) - 1), (0, 0))
        picks |= {k: (at[n], at[n + 1]) for n, k in enumerate(self._picked)}
        found = []
        for k, (begin, end) in picks.items():
            middle = (begin + end) // 2
            found.append(
                Found(
                    picked[begin:middle],
                    picked[middle:end],
                    clusters[slice(*own.channel_at[k : k + 2])],
                    tuple(heights[slice(*own.table_at[k : k + 2])]),
                )
            )
        return found
