"""Turn the kernels of a model's groups into problems to cluster, and select from each group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from .aliases import Counts, Ints, Progress
from .arguments import shown
from .clustering.arrays import to_numpy
from .clustering.backends.tensors import placed, together
from .clustering.problem import LayerProblem
from .clustering.selection import select_layers
from .graph import ChannelGraph, ChannelGroup
from .targets import Select, Settings


def require_finite(kernels: Mapping[str, Tensor], scales: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `scales` as float32 or float64 on the host; raise `ValueError` if a kernel is not finite.

    They are fetched by one copy from each device, before the selection starts there.
    """
    given = [scale if scale.dtype == torch.float64 else scale.float() for scale in scales.values()]
    # a sum of squares is not finite where a number is not; few launches do it for all layers
    whole = [torch.isfinite(get_total_norm(kernels.values()))] if kernels else []
    found = together([*whole, *given])
    if whole and not found[0]:
        _require_each_finite(kernels)
    return {name: torch.from_numpy(x) for name, x in zip(scales, found[len(whole) :], strict=True)}


def _require_each_finite(kernels: Mapping[str, Tensor]) -> None:
    """Raise the error for the first kernel that is not finite; where a sum overflowed, there may be none."""
    # NaN passes through minima and maxima, which take no memory
    finite = [torch.isfinite(torch.stack(torch.aminmax(kernel))).all() for kernel in kernels.values()]
    for name, flag in zip(kernels, together(finite), strict=True):
        if not flag:
            raise not_finite(name)


def not_finite(name: str) -> ValueError:
    """Return the error for a layer that cannot be clustered."""
    return ValueError(f"model: the weight of {name} has NaN or infinite values; it cannot be clustered")


class Chosen(NamedTuple):
    """The part of a selection that is used; its labels would be as large as a Linear layer's weights."""

    keep: Ints
    """[keep] positions in the group, ascending."""
    covered: int
    clusters: int
    """Covered clusters and all clusters, over all input channels; both 0 where nothing was clustered."""

    @property
    def coverage(self) -> float | None:
        """Covered clusters / all clusters, or None where nothing was clustered."""
        return self.covered / self.clusters if self.clusters else None


BATCH_BYTES = 2**24
BATCH_SHARE = 1 / 16
"""Layers are selected together on the host whose copied kernels and labels take at most so many bytes, or
such a share of all kernels; a larger layer is selected alone."""


def select_groups(
    graph: ChannelGraph,
    counts: Counts,
    settings: Settings,
    progress: Progress | None,
    orders: Mapping[str, Ints] = MappingProxyType({}),
) -> list[Chosen]:
    """Run steps 2 and 3 for every group, but for those whose channels stand in `orders` [A] already."""
    chosen = {
        name: Chosen(np.sort(order[: counts[name]]), covered=0, clusters=0) for name, order in orders.items()
    }
    if chosen and progress is not None:
        progress("select", len(chosen), len(graph.groups))
    rest = [group for group in graph.groups if group.name not in chosen]
    for groups in _batches(rest, together=settings.backend == "triton"):
        before = len(chosen)

        def report(done: int, before: int = before) -> None:
            if progress is not None:
                progress("select", before + done, len(graph.groups))

        problems = [
            LayerProblem(
                group.name,
                problem_tables([(p.kernel, p.rows) for p in group.producers], settings, group.heads),
                counts[group.name],
            )
            for group in groups
        ]
        found = choose(problems, settings, settings.seed, report if progress else None)
        del problems  # before the next ones are made
        chosen.update(zip((group.name for group in groups), found, strict=True))
    return [chosen[group.name] for group in graph.groups]


def choose(
    problems: Sequence[LayerProblem],
    settings: Settings,
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> list[Chosen]:
    """Select from every problem, by REPrune or by the criterion of `settings`."""
    if settings.select is not None:
        return list(_by_criterion(problems, settings.select, progress))
    found = select_layers(
        problems, seed=seed, ties=settings.ties, backend=settings.backend, labels=False, progress=progress
    )
    return [Chosen(s.keep, int(np.add.reduce(s.gains)), int(np.add.reduce(s.clusters))) for s in found]


def _by_criterion(
    problems: Sequence[LayerProblem], select: Select, progress: Callable[[int], None] | None
) -> Iterator[Chosen]:
    for done, problem in enumerate(problems, 1):
        channels = problem.tables[0].shape[1]
        keep = np.arange(channels)
        if problem.keep < channels:
            keep = np.sort(to_numpy(select(problem), "select").ravel())
            good = keep.dtype.kind in "iu" and keep.size == problem.keep and np.unique(keep).size == keep.size
            if not good or keep[0] < 0 or keep[-1] >= channels:
                raise ValueError(
                    f"select: expected {problem.keep} different channels of 0..{channels - 1} for layer "
                    f"{problem.name}; got {shown(keep.tolist())}"
                )
        yield Chosen(keep.astype(np.int64), 0, 0)
        if progress is not None:
            progress(done)


def _batches(groups: Sequence[ChannelGroup], together: bool) -> Iterator[list[ChannelGroup]]:
    """Yield the groups, as many at a time as need little memory, or all if `together`."""
    kernels = sum(p.kernel.nbytes for group in groups for p in group.producers)
    most = max(BATCH_BYTES, BATCH_SHARE * kernels)
    batch: list[ChannelGroup] = []
    size = 0
    for group in groups:
        need = sum(_room(p.kernel, p.rows, group.heads) for p in group.producers)
        if batch and not together and size + need > most:
            yield batch
            batch, size = [], 0
        batch.append(group)
        size += need
    if batch:
        yield batch


def _room(kernel: Tensor, rows: Ints, heads: bool) -> int:
    """Return about how many bytes of the host a producer takes: what :func:`tables_of` copies, and labels."""
    tables = _tables(rows, heads)
    label = 2 if len(rows) <= 2**16 else 4
    labels = label * kernel.shape[1] * len(rows) * len(tables)
    if kernel.device.type != "cpu" or kernel.dtype not in (torch.float32, torch.float64):
        return kernel.nbytes + labels
    return labels + kernel[0].nbytes * sum(len(row) for row in tables if _slice(row) is None)


def _tables(rows: Ints, heads: bool) -> Sequence[Ints]:
    """Return the output channels of each table of an atom's `rows` [A, w]."""
    return [rows.ravel()] if heads else list(rows.T)


def _slice(row: Ints) -> slice | None:
    """Return the slice that has the channels `row`, which are then read where they are, or None."""
    step = int(row[1] - row[0]) if len(row) > 1 else 1
    if row[0] < 0 or step < 1 or (np.diff(row) != step).any():
        return None
    return slice(int(row[0]), int(row[-1]) + 1, step)


def problem_tables(
    producers: Iterable[tuple[Tensor, Ints]], settings: Settings, heads: bool = False
) -> tuple[Any, ...]:
    """Return the tables of a group: all its producers' kernels [O, I, ...], with its atoms' rows [A, w]."""
    backend = "cpp" if settings.select is not None else settings.backend
    return tuple(table for kernel, rows in producers for table in tables_of(kernel, rows, backend, heads))


def tables_of(kernel: Tensor, rows: Ints, backend: str, heads: bool = False) -> list[Any]:
    """Return [I, A, d] for each of an atom's w channels: I clustering problems of A kernels.

    Of atoms that are `heads` there is one table [I, A, w d]: the channels of a head are the coordinates of
    one vector, and of two heads the first coordinates have nothing in common.

    `kernel` [O, I, ...], `rows` [A, w] the output channels of each atom (-1: it has none here).

    They are on the host, except for the backend "triton", which takes them where they are.
    """
    kernel = kernel.flatten(2)
    if kernel.dtype not in (torch.float32, torch.float64):
        kernel = kernel.float()
    if backend != "triton":
        kernel = kernel.cpu()
    points = kernel.transpose(0, 1)  # [I, O, d]
    tables = []
    for row in _tables(rows, heads):
        if (places := _slice(row)) is not None:
            tables.append(points[:, places])
        else:
            table = points[:, placed(row, points.device)]
            if (row < 0).any():  # an atom without a channel here
                table.masked_fill_(placed(row < 0, points.device)[None, :, None], 0)
            tables.append(table)
    if heads:
        tables = [table.reshape(len(points), len(rows), rows.shape[1] * points.shape[2]) for table in tables]
    return tables if backend == "triton" else [table.numpy() for table in tables]
