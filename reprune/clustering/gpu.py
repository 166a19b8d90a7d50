"""Steps 2 and 3 on the GPU: clusters of every channel, one cut per layer, coverage; all layers at once.

Everything is started before anything is waited for, and one copy to the host at the end brings what a plan
needs; label tables stay on the GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import reference
from .backend import core
from .tensors import to_float_tensor, together

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class GpuProblem:
    """One layer; what :class:`reprune.clustering.selection.LayerProblem` is for all backends."""

    name: str
    tables: Sequence[Any]
    """Each [I, O, d], real numbers, any strides, numpy or torch."""
    keep: int
    """1 <= keep < O."""


@dataclass(frozen=True, eq=False)
class GpuSelection:
    """Small results on the host, labels on the GPU."""

    order: npt.NDArray[np.int64]
    gains: npt.NDArray[np.int64]
    """[keep] each."""
    heights: tuple[float, ...]
    """[tables]"""
    clusters: npt.NDArray[np.int32]
    """[sum of I]"""
    labels: torch.Tensor
    """int32 [O, sum of I]"""


def select_layers(problems: Sequence[GpuProblem], seed: int, ties: str) -> list[GpuSelection]:
    """The selections of all layers; trusts its arguments but for the number of filters.

    Raises ValueError for a layer of more than 4,096 filters.
    """
    from ..kernels import coverage as cover
    from ..kernels.select import cluster_layers

    for problem in problems:
        O = problem.tables[0].shape[1]
        if O > cover.MOST_FILTERS:
            raise ValueError(
                f"layer {problem.name!r}: expected at most {cover.MOST_FILTERS} filters for backend "
                f"'triton', got {O}; backend='cpp' takes any number"
            )
    if not problems:
        return []
    tables = [[to_float_tensor(table, "tables") for table in problem.tables] for problem in problems]
    clustered = cluster_layers([(own, p.keep) for own, p in zip(tables, problems, strict=True)])
    covered = cover.max_coverage(
        core(),
        [
            cover.CoverProblem(
                labels=layer.labels,
                clusters=problem.keep,
                keep=problem.keep,
                key=reference.tie_key(seed, problem.name),
                norms=cover.squared_norms(core(), own) if ties == "norm" else None,
            )
            for problem, own, layer in zip(problems, tables, clustered, strict=True)
        ],
    )
    small = [
        part
        for layer, picks in zip(clustered, covered, strict=True)
        for part in (picks, layer.clusters, layer.heights)
    ]
    found = iter(together(small))
    results = []
    for layer in clustered:
        (order, gains), clusters, heights = (next(found) for _ in range(3))
        results.append(GpuSelection(order, gains, tuple(heights.tolist()), clusters, layer.labels.T))
    return results
