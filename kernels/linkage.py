"""Ward linkage of many problems on the device of their points: the host side of kernels/ward.py."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .launch import SCRATCH, chip_of, on, on_device, padded, state_dtype, ward_shape
from .ward import REALS, WORDS, ward_kernel


@dataclass(frozen=True, eq=False)
class Trees:
    """Dendrograms of all problems of a list of tables, one after the other; n points have n places,
    the last of `joins` and `costs` unused."""

    sizes: list[int]
    """Points of a problem of every table."""
    counts: list[int]
    """Problems of every table."""
    joins: Tensor
    """int32 [places, 3]: merges in the order made: the clusters, numbered as in scipy's Z but in that order,
    and the points of both."""
    costs: Tensor
    """float64 [places]: their heights."""
    up: Tensor
    """int32 [places]: the lowest point of the cluster that a point's cluster joins."""
    tops: Tensor
    """float64 [places]: at this height; infinity for point 0, which is the lowest of all."""


def link(tables: Sequence[Tensor], precision: str = "auto", scratch: int = SCRATCH) -> Trees:
    """Ward's dendrograms of tables [I, n, d]: I problems of n points each; trusts its arguments.

    One launch for all tables of the same d and type whose state fits `scratch` bytes, larger problems
    first, and no synchronisation.

    Args:
        tables: float32 or float64, finite, any strides, on one device.
        precision: of the state: "float32" (heights to 1e-6 of the largest), "float64" (to 1e-12), or "auto":
            float64 for float64 and where the chip runs it at half the rate of float32, float32 elsewhere.
    """
    device = tables[0].device
    dtype = state_dtype(precision, tables)
    sizes, counts = [t.shape[1] for t in tables], [t.shape[0] for t in tables]
    places, total = [], 0
    for n, count in zip(sizes, counts, strict=True):
        places.append(total)
        total += n * count
    trees = Trees(
        sizes,
        counts,
        torch.empty((total, 3), dtype=torch.int32, device=device),
        torch.empty(total, dtype=torch.float64, device=device),
        torch.empty(total, dtype=torch.int32, device=device),
        torch.empty(total, dtype=torch.float64, device=device),
    )
    alike: dict[tuple[int, torch.dtype], list[int]] = {}
    for k in sorted(range(len(tables)), key=lambda k: -sizes[k]):
        alike.setdefault((tables[k].shape[2], tables[k].dtype), []).append(k)
    for (d, _), same in sorted(alike.items(), key=lambda item: -item[0][0]):
        room = scratch
        chunk: list[tuple[int, int, int]] = []  # (table, first problem, problems)
        bytes_of_position = (d + REALS) * dtype.itemsize + 4 * WORDS.value
        for k in same:
            own = padded(sizes[k], ward_shape(d, dtype, chip_of(device))["C"]) * bytes_of_position
            begin = 0
            while begin < counts[k]:
                fit = min(counts[k] - begin, max(room // own, 0 if chunk else 1))
                if fit == 0:
                    _link_chunk(tables, places, chunk, trees, dtype)
                    chunk, room = [], scratch
                    continue
                chunk.append((k, begin, fit))
                begin, room = begin + fit, room - fit * own
        if chunk:
            _link_chunk(tables, places, chunk, trees, dtype)
    return trees


def _link_chunk(
    tables: Sequence[Tensor],
    places: Sequence[int],
    chunk: Sequence[tuple[int, int, int]],
    trees: Trees,
    dtype: torch.dtype,
) -> None:
    """One launch for problems `begin .. begin + count - 1` of every (table, begin, count), of one d and
    type."""
    first = tables[chunk[0][0]]
    device, d = first.device, first.shape[2]
    how = ward_shape(d, dtype, chip_of(device))
    parts = [tables[k][begin : begin + count] for k, begin, count in chunk]
    orders: list[Tensor | None] = [None] * len(parts)
    if d == 1:
        parts, orders = _sorted(parts)
    rows, position = [], 0
    for (k, begin, count), part, order in zip(chunk, parts, orders, strict=True):
        n, each = trees.sizes[k], np.arange(count)
        own = np.empty((count, 7), np.int64)  # as ward_kernel reads them
        own[:, 0] = part.data_ptr() + each * (part.stride(0) * part.element_size())
        own[:, 1:3] = part.stride()[1:]
        own[:, 3] = 0 if order is None else order.data_ptr() + each * (8 * n)
        own[:, 4] = n
        own[:, 5] = places[k] + (begin + each) * n
        own[:, 6] = position + each * padded(n, how["C"])
        position += count * padded(n, how["C"])
        rows.append(own)
    problems = on_device(np.concatenate(rows), "int64", device)
    with on(device):
        ward_kernel[(len(problems),)](
            problems,
            torch.empty(position * (d + REALS), dtype=dtype, device=device),
            torch.empty(position * WORDS.value, dtype=torch.int32, device=device),
            trees.joins,
            trees.costs,
            trees.up,
            trees.tops,
            DOUBLE=first.dtype == torch.float64,
            D=d,
            LINE=d == 1,
            **how,
        )


def _sorted(parts: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
    """Parts [count, n, 1] sorted, and which point came where; those of one n, side by side, in one go."""
    points: list[Tensor] = []
    orders: list[Tensor | None] = []
    for _, group in itertools.groupby(parts, key=lambda part: part.shape[1]):
        same = list(group)
        values, which = torch.sort(torch.cat(same), dim=1, stable=True)
        counts = [len(part) for part in same]
        points += torch.split(values, counts)
        orders += torch.split(which, counts)
    return points, orders


def ward(points: Tensor, precision: str = "auto") -> Tensor:
    """scipy's Z, float64 [B, n-1, 4], of points [B, n, d]: float32 or float64, finite, any strides.

    Heights are sorted, and a merge is after those below it; `precision` as in :func:`link`. Nothing waits.
    """
    B, n, _ = points.shape
    if B == 0 or n == 1:
        return torch.empty((B, n - 1, 4), dtype=torch.float64, device=points.device)
    return dendrograms(link([points], precision))


def dendrograms(trees: Trees) -> Tensor:
    """scipy's Z of all problems of the one table that `trees` is of."""
    (B,), (n,) = trees.counts, trees.sizes
    device = trees.costs.device
    heights, place = torch.sort(trees.costs.view(B, n)[:, :-1], dim=1, stable=True)
    rank = torch.empty_like(place)
    rank.scatter_(1, place, torch.arange(n - 1, device=device).expand(B, -1))
    made = trees.joins.view(B, n, 3)[:, :-1].long().gather(1, place[:, :, None].expand(-1, -1, 3))
    joins = made[:, :, :2].reshape(B, -1)
    joins = torch.where(joins >= n, n + rank.gather(1, (joins - n).clamp(min=0)), joins).view(B, -1, 2)
    Z = torch.empty((B, n - 1, 4), dtype=torch.float64, device=device)
    Z[:, :, :2] = joins.sort(dim=2).values
    Z[:, :, 2] = heights
    Z[:, :, 3] = made[:, :, 2]
    return Z
