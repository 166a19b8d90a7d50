"""Cover the clusters of many layers on the GPU that holds their labels: host of csrc/gpu/coverage.cu.

On the CPU the same program runs on a stand-in for blocks of threads, which is slow and for tests only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .launch import Words, device_guard

MOST_FILTERS = 4096
"""Filters of a layer, at most: their gains lie in shared memory, and an index has 16 bits for each."""

LAYER_WORDS = 8
"""Words of a CoverLayer (csrc/gpu/coverage_layer.hpp)."""


def has_room(filters: int, channels: int) -> bool:
    """Return whether the kernel covers such a layer: places of its index are words, gains less than 2^28."""
    return filters <= MOST_FILTERS and 3 * filters * channels < 2**32 and channels < 2**28


def index_words(filters: int, channels: int) -> int:
    """Return how many words of 16 bits the index of a layer takes: whole 8 bytes, for the next one's sake."""
    members, where = 4 * (filters // 2) * channels, filters * channels
    return -(-(members + where) // 4) * 4


class CoverLayer(NamedTuple):
    """One layer whose clusters are to be covered, by addresses; its fields are not checked."""

    labels: int
    """Address of int32 [I, O]: the cluster of kernel (i, j), from 0 to `clusters` - 1."""
    norms: int
    """Address of float64 [O], for `ties="norm"`; all layers of a batch have them, or it is 0 for all."""
    filters: int
    """O, at most :data:`MOST_FILTERS`."""
    channels: int
    """I."""
    clusters: int
    """Upper bound on the clusters of any channel; at most O."""
    keep: int
    """1 <= keep <= O."""
    key: int
    """:func:`reprune.clustering.reference.tie_key` of the seed and the layer's name."""


class Coverage:
    """Greedy maximum coverage of many layers, in batches that are launched one by one.

    What the kernels read is sent to the device at once, on the current stream.
    """

    def __init__(
        self,
        core: ModuleType,
        layers: Sequence[CoverLayer],
        batches: Sequence[Sequence[int]],
        device: torch.device,
    ) -> None:
        self.core, self.layers, self.batches, self.device = core, layers, batches, device
        self.at = list(accumulate((2 * layer.keep for layer in layers), initial=0))
        """Where the results of every layer begin, and where the last ones end."""
        sizes = [index_words(layer.filters, layer.channels) for layer in layers]
        index_at = list(accumulate(sizes, initial=0))
        self._index = torch.empty(index_at[-1], dtype=torch.int16, device=device)
        words = Words(LAYER_WORDS * sum(map(len, batches)), self.at[-1], device)
        self.found = words.room
        """int64 [at[-1]]: filters and gains, [2, keep] of every layer."""
        index, results = self._index.data_ptr(), self.found.data_ptr()
        rows = []
        for layer, start, at in zip(layers, index_at, self.at, strict=False):
            order = results + 8 * at
            scratch = index + 2 * start, order, order + 8 * layer.keep
            rows.append((layer.labels, layer.norms, *scratch, *layer[2:]))
        self._packed: list[tuple[Tensor, tuple[int, int]]] = []
        for batch in batches:
            packed, *shape = core.pack_layers([rows[k] for k in batch])
            table = np.frombuffer(packed, np.int64)
            assert table.size == LAYER_WORDS * len(batch)
            self._packed.append((words.put(table), (shape[0], shape[1])))
        words.send()

    def launch(self, batch: int, stream: int, threads: int = 64, order_seed: int = 0) -> None:
        """Start a batch by two launches on a stream of the current device; on the CPU, run it.

        The last two arguments are those of :func:`max_coverage`.
        """
        own = self.batches[batch]
        if len(own) == 0:
            return
        packed, shape = self._packed[batch]
        given = packed.data_ptr(), len(own), shape, self.layers[own[0]].norms != 0
        if self.device.type == "cpu":
            self.core.cover_layers_on_host(*given, threads, order_seed)
        else:
            self.core.cover_layers(*given, packed.device.index, stream)


@dataclass(frozen=True, eq=False)
class CoverProblem:
    """One layer whose clusters are to be covered; its fields are not checked."""

    labels: Tensor
    """int32 [I, O], contiguous; this and the others as :class:`CoverLayer` has them."""
    clusters: int
    keep: int
    key: int
    norms: Tensor | None = None
    """float64 [O]; all problems of a call have them or none has."""


def max_coverage(
    core: ModuleType, problems: Sequence[CoverProblem], threads: int = 64, order_seed: int = 0
) -> list[Tensor]:
    """Return the picked filters in order and their gains, int64 [2, keep] for every problem.

    It makes two launches on the current stream and does not synchronise. All results are slices of one
    tensor.

    Args:
        core: `reprune._core`.
        problems: on one device.
        threads, order_seed: on the CPU only: number of threads of the stand-in, a power of two from 32 on,
            and the seed of their order between two barriers.
    """
    if not problems:
        return []
    device = problems[0].labels.device
    layers = [
        CoverLayer(
            p.labels.data_ptr(),
            0 if p.norms is None else p.norms.data_ptr(),
            p.labels.shape[1],
            p.labels.shape[0],
            p.clusters,
            p.keep,
            p.key,
        )
        for p in problems
    ]
    coverage = Coverage(core, layers, [range(len(layers))], device)
    stream = 0 if device.type == "cpu" else torch.cuda.current_stream(device).cuda_stream
    with device_guard(device):
        coverage.launch(0, stream, threads, order_seed)
    return [part.view(2, -1) for part in torch.split(coverage.found, [2 * p.keep for p in problems])]


def squared_norms(core: ModuleType, tables: Sequence[Tensor]) -> Tensor:
    """Return the squared L2 norms, float64 [O], of the filters of tables [I, O, d].

    Added up in float64 in the order (table, channel, coordinate), bit for bit as the other backends do: norms
    that differ in the last bit are not tied. Where a square would overflow or vanish, all numbers are scaled
    first, as :func:`reprune.clustering.reference.selection.squared_norms` says.
    """
    device = tables[0].device
    if any(table.dtype == torch.float64 for table in tables):  # squares of float32 do neither
        tables = _scaled(tables)
    norms = torch.zeros(tables[0].shape[1], dtype=torch.float64, device=device)
    for table in tables:
        given = (table.data_ptr(), table.dtype == torch.float64, tuple(table.shape), table.stride())
        if device.type == "cpu":
            core.add_squares_on_host(*given, norms.data_ptr())
        else:
            with torch.cuda.device(device):
                stream = torch.cuda.current_stream(device)
                core.add_squares(*given, norms.data_ptr(), device.index, stream.cuda_stream)
    return norms


def _scaled(tables: Sequence[Tensor]) -> list[Tensor]:
    """Return float64 tables, the largest number scaled to 2^480 if a square would overflow or vanish.

    Nothing waits for the device.
    """
    zero = torch.zeros(1, dtype=torch.float64, device=tables[0].device)
    sizes = torch.cat([*(table.double().abs().flatten() for table in tables), zero])
    largest, least = sizes.max(), sizes.where(sizes > 0, torch.inf).min()
    extreme = (largest >= 2.0**480) | (least < 2.0**-500)
    shift = torch.where(extreme, 480 - torch.frexp(largest).exponent, 0).long()
    first = shift.clamp(max=1000)  # 2^1554, for the least number, is none
    powers = [((part + 1023) << 52).view(torch.float64) for part in (first, shift - first)]
    return [table.double() * powers[0] * powers[1] for table in tables]
