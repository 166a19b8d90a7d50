"""Cover the clusters of many layers on the GPU that holds their labels: host of csrc/gpu/coverage.cu.

On the CPU the same program runs on a stand-in for blocks of threads, which is slow and for tests only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

MOST_FILTERS = 4096
"""Filters of a layer, at most: their gains lie in shared memory, and an index has 16 bits for each."""


@dataclass(frozen=True, eq=False)
class CoverProblem:
    """One layer whose clusters are to be covered; its fields are not checked."""

    labels: Tensor
    """int32 [I, O], contiguous: the cluster of kernel (i, j), from 0 to `clusters` - 1."""
    clusters: int
    """Upper bound on the clusters of any channel; at most O."""
    keep: int
    """1 <= keep <= O <= :data:`MOST_FILTERS`."""
    key: int
    """:func:`reprune.clustering.reference.tie_key` of the seed and the layer's name."""
    norms: Tensor | None = None
    """float64 [O], for `ties="norm"`; all problems of a call have them or none has."""


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
    found = torch.empty(sum(2 * p.keep for p in problems), dtype=torch.int64, device=device)
    results = [part.view(2, -1) for part in torch.split(found, [2 * p.keep for p in problems])]
    sizes = [p.labels.shape[0] * (2 * p.labels.shape[1] + 1) for p in problems]
    scratch = torch.split(torch.empty(sum(sizes), dtype=torch.int16, device=device), sizes)
    layers, *shape = core.pack_layers(
        [
            (
                p.labels.data_ptr(),
                0 if p.norms is None else p.norms.data_ptr(),
                index.data_ptr(),
                result[0].data_ptr(),
                result[1].data_ptr(),
                p.labels.shape[1],
                p.labels.shape[0],
                p.clusters,
                p.keep,
                p.key,
            )
            for p, index, result in zip(problems, scratch, results, strict=True)
        ]
    )
    packed = torch.frombuffer(bytearray(layers), dtype=torch.uint8)
    by_norm = problems[0].norms is not None
    if device.type == "cpu":
        core.cover_layers_on_host(packed.data_ptr(), len(problems), shape, by_norm, threads, order_seed)
        return results
    with torch.cuda.device(device):
        # from pinned memory: a copy from ordinary memory would wait for all that runs on the stream
        packed = packed.pin_memory().to(device, non_blocking=True)
        stream = torch.cuda.current_stream(device)
        core.cover_layers(packed.data_ptr(), len(problems), shape, by_norm, device.index, stream.cuda_stream)
    return results


def squared_norms(core: ModuleType, tables: Sequence[Tensor]) -> Tensor:
    """Return the squared L2 norms, float64 [O], of the filters of tables [I, O, d].

    Added up in float64 in the order (table, channel, coordinate), bit for bit as the other backends do: norms
    that differ in the last bit are not tied.
    """
    device = tables[0].device
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
