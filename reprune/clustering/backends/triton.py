"""Cluster every channel, cut each layer and cover, on the GPU: all layers at once.

Everything is started before anything is waited for, and one copy to the host at the end brings what a plan
needs; label tables stay on the GPU. Only layers that the coverage kernel has no room for
(:func:`reprune.kernels.coverage.has_room`) are covered by the C++ core, from a copy of their labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import reference
from ..arrays import MOST_IN_MATRIX, MOST_ON_GPU
from ..problem import LayerProblem, Selection
from . import core, cpp
from .cpp import cut
from .protocol import Report
from .tensors import require_finite, restore, to_float_tensor, to_tensor, together

if TYPE_CHECKING:
    import torch

__all__ = ["cover", "cut", "floats", "integer_table", "link", "pairwise", "restore", "select"]
# The cut of a stored dendrogram is host work.


def floats(x: object, name: str) -> torch.Tensor:
    """Wait for the GPU, to see whether all numbers are finite."""
    tensor = to_float_tensor(x, name)
    require_finite(tensor, name)
    return tensor


def integer_table(x: object, name: str) -> torch.Tensor:
    """Return `x` as int64 [O, I] on the GPU, O >= 1; `ValueError` if it is something else."""
    import torch

    table = to_tensor(x, name)
    plain = table.dtype.is_floating_point or table.dtype.is_complex or table.dtype == torch.bool
    if table.ndim != 2 or plain or len(table) < 1:
        raise ValueError(f"{name}: expected integers [O, I], O >= 1; got {table.dtype} {list(table.shape)}")
    return table.long()


def link(batches: Sequence[torch.Tensor], names: Sequence[str], method: str) -> list[torch.Tensor]:
    """Link batches; those of one shape and dtype share a launch.

    Raises ValueError for more points than a problem may have here.
    """
    import torch

    from ...kernels import linkage, square

    most = MOST_ON_GPU if method == "ward" else MOST_IN_MATRIX
    for batch, name in zip(batches, names, strict=True):
        _require_few(batch.shape[1], f"{name}: expected", "points", most)
    groups: dict[Any, list[int]] = {}
    for k, batch in enumerate(batches):
        groups.setdefault((*batch.shape[1:], batch.dtype, batch.device), []).append(k)
    results: list[Any] = [None] * len(batches)
    for same in groups.values():
        points = torch.cat([batches[k] for k in same])
        trees = linkage.ward(points) if method == "ward" else square.link(points, method)
        parts = torch.split(trees, [len(batches[k]) for k in same])
        for k, part in zip(same, parts, strict=True):
            results[k] = part
    return results


def pairwise(batches: Sequence[torch.Tensor], names: Sequence[str]) -> list[torch.Tensor]:
    """Compute the distances, one launch for each batch.

    Raises ValueError for more points than a problem may have here.
    """
    from ...kernels import pairwise as kernel

    for batch, name in zip(batches, names, strict=True):
        _require_few(batch.shape[1], f"{name}: expected", "points")
    return [kernel.pairwise(batch) for batch in batches]


def cover(
    labels: torch.Tensor, keep: int, seed: int, name: str, norms: npt.NDArray[np.float64] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cover on the GPU, or on the host what the kernel has no room for."""
    import torch

    from ...kernels import coverage as kernel

    O = len(labels)
    if not kernel.has_room(*labels.shape):
        order, gains = cpp.cover(labels.cpu().numpy(), keep, seed, name, norms)
        return torch.from_numpy(order).to(labels.device), torch.from_numpy(gains).to(labels.device)
    columns = labels.T.contiguous()
    high = int(labels.max()) if labels.numel() else 0
    if high >= O:  # the kernel counts clusters in arrays of at most O
        columns, high = _renumbered(columns), O - 1
    problem = kernel.CoverProblem(
        columns.int(),
        high + 1,
        keep,
        reference.tie_key(seed, name),
        None if norms is None else torch.from_numpy(norms).to(labels.device),
    )
    (found,) = kernel.max_coverage(core(), [problem])
    return found[0], found[1]


def _renumbered(columns: torch.Tensor) -> torch.Tensor:
    """Return, of labels [I, O], the same clusters, numbered from 0 in the order of their labels."""
    ascending, filters = columns.sort(dim=1)
    steps = (ascending[:, 1:] != ascending[:, :-1]).long().cumsum(dim=1)
    result = columns.new_zeros(columns.shape)
    return result.scatter_(1, filters[:, 1:], steps)


def select(
    problems: Sequence[LayerProblem], seed: int, ties: str, labels: bool, report: Report | None
) -> list[Selection]:
    """Select all at once; labels stay on the GPU.

    Raises ValueError for a layer of more filters than a problem may have points here.
    """
    from ...kernels import coverage as kernel
    from ...kernels.select import Layer, Selecting

    for p in problems:
        if (filters := p.tables[0].shape[1]) > MOST_ON_GPU:
            _require_few(filters, f"layer {p.name!r}: expected", "filters")
    if not problems:
        return []
    layers = []
    for p in problems:
        tables = [to_float_tensor(table, "tables") for table in p.tables]
        layers.append(Layer(tables, p.keep, reference.tie_key(seed, p.name)))
    if ties == "norm":
        for layer in layers:
            layer.norms = kernel.squared_norms(core(), layer.tables)
    started = Selecting(core(), layers)
    results = together(started.results)
    selections = []
    nothing = started.clustering.labels[:0, None].T
    for k, (found, problem) in enumerate(zip(started.read(results), problems, strict=True)):
        order, gains, own = found.order, found.gains, started.clustering
        if not kernel.has_room(layers[k].filters, layers[k].channels):
            norms = layers[k].norms
            host = own.labels_of(k).T.cpu().numpy()
            order, gains = cpp.cover(
                host, problem.keep, seed, problem.name, None if norms is None else norms.cpu().numpy()
            )
        table = own.labels_of(k).T if labels else nothing
        selections.append(Selection(np.sort(order), order, gains, found.heights, table, found.clusters))
    if report is not None:
        report(len(problems))
    return selections


def _require_few(count: int, expected: str, what: str, most: int = MOST_ON_GPU) -> None:
    if count > most:
        raise ValueError(
            f"{expected} at most {most} {what} for backend 'triton'; got {count}; "
            "backend='cpp' takes any number"
        )
