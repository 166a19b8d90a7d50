"""Ward linkage of many problems on the device of their points: the host side of kernels/ward.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .launch import SCRATCH, on, on_device, padded, state_dtype, ward_shape
from .ward import FAR, REALS, WORDS, ward_kernel


@dataclass(frozen=True, eq=False)
class Trees:
    """Dendrograms of all problems of a list of tables, one after the other; n points have n places,
    the last of ``joins`` and ``costs`` unused."""

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

    One launch for all tables of the same d whose state fits ``scratch`` bytes, larger problems first, and no
    synchronisation.

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
    for d in sorted({t.shape[2] for t in tables}, reverse=True):
        same = sorted((k for k, t in enumerate(tables) if t.shape[2] == d), key=lambda k: -sizes[k])
        room = scratch
        chunk: list[tuple[int, int, int]] = []  # (table, first problem, problems)
        for k in same:
            own = padded(sizes[k], ward_shape(d, dtype, device)["C"]) * (
                (d + REALS) * dtype.itemsize + 4 * WORDS.value
            )
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
    """One launch for problems ``begin .. begin + count - 1`` of every (table, begin, count) of the same d."""
    device, d = tables[0].device, tables[chunk[0][0]].shape[2]
    how = ward_shape(d, dtype, device)
    rows, sizes, results, begins, position, place = d + REALS, [], [], [], 0, 0
    for k, begin, count in chunk:
        n = trees.sizes[k]
        P = padded(n, how["C"])
        sizes += [n] * count
        results += [places[k] + (begin + b) * n for b in range(count)]
        begins += [position + b * P for b in range(count)]
        position, place = position + count * P, place + count * n
    reals = torch.empty(position * rows, dtype=dtype, device=device)
    order = torch.empty(trees.up.shape if d == 1 else 0, dtype=torch.int32, device=device)
    units, at = [], 0
    for k, begin, count in chunk:
        n = trees.sizes[k]
        points, unit = normalized(tables[k][begin : begin + count])
        if d == 1:
            points, which = torch.sort(points, dim=1, stable=True)
            first = places[k] + begin * n
            order[first : first + count * n] = which.flatten()
        size = count * rows * padded(n, how["C"])
        fill(reals[at : at + size], points, how["C"])
        units.append(unit)
        at += size
    words = torch.empty(position * WORDS.value, dtype=torch.int32, device=device)
    costs = torch.empty(trees.costs.shape if dtype == torch.float32 else 0, dtype=dtype, device=device)
    tops = torch.empty_like(costs)
    if dtype == torch.float64:
        costs, tops = trees.costs, trees.tops
    with on(device):
        ward_kernel[(len(sizes),)](
            reals,
            words,
            order,
            trees.joins,
            costs,
            trees.up,
            tops,
            on_device(sizes, "int32", device),
            on_device(results, "int64", device),
            on_device(begins, "int64", device),
            D=d,
            LINE=d == 1,
            **how,
        )
    for (k, begin, count), unit in zip(chunk, units, strict=True):
        n = trees.sizes[k]
        part = slice(places[k] + begin * n, places[k] + (begin + count) * n)
        for raw, whole in ((costs, trees.costs), (tops, trees.tops)):
            whole[part] = (raw[part].view(count, n).double() * unit[:, None]).flatten()


def fill(reals: Tensor, points: Tensor, columns: int) -> None:
    """Puts points [I, n, d] into the state of I problems, flat; the rest of a last tile lies far away."""
    count, n, d = points.shape
    P = padded(n, columns)
    points = torch.nn.functional.pad(points, (0, 0, 0, P - n), value=FAR)
    state = reals.view(count, P // columns, d + REALS, columns)
    state[:, :, :d] = points.view(count, P // columns, columns, d).transpose(2, 3)


def normalized(points: Tensor) -> tuple[Tensor, Tensor]:
    """Points [I, n, d] less their mean, times a power of two; and the factors [I], float64, that undo it.

    No square overflows or vanishes in float32 then, whatever the points' size and common offset.
    """
    exponent = torch.frexp(points.double().abs().amax((1, 2))).exponent.clamp(-1000, 1000)
    points = torch.ldexp(points.double(), -exponent[:, None, None])
    points = points - points.mean(1, keepdim=True)
    rest = torch.frexp(points.abs().amax((1, 2))).exponent.clamp(-1000, 1000)
    points = torch.ldexp(points, -rest[:, None, None])
    one = torch.ones_like(exponent, dtype=torch.float64)
    return points, torch.ldexp(torch.ldexp(one, rest), exponent)


def ward(points: Tensor, precision: str = "auto") -> Tensor:
    """scipy's Z, float64 [B, n-1, 4], of points [B, n, d]: float32 or float64, finite, any strides.

    Heights are sorted, and a merge is after those below it; ``precision`` as in :func:`link`. Nothing waits.
    """
    B, n, _ = points.shape
    if B == 0 or n == 1:
        return torch.empty((B, n - 1, 4), dtype=torch.float64, device=points.device)
    trees = link([points], precision)
    heights, place = torch.sort(trees.costs.view(B, n)[:, :-1], dim=1, stable=True)
    rank = torch.empty_like(place)
    rank.scatter_(1, place, torch.arange(n - 1, device=points.device).expand(B, -1))
    made = trees.joins.view(B, n, 3)[:, :-1].long().gather(1, place[:, :, None].expand(-1, -1, 3))
    joins = made[:, :, :2].reshape(B, -1)
    joins = torch.where(joins >= n, n + rank.gather(1, (joins - n).clamp(min=0)), joins).view(B, -1, 2)
    Z = torch.empty((B, n - 1, 4), dtype=torch.float64, device=points.device)
    Z[:, :, :2] = joins.sort(dim=2).values
    Z[:, :, 2] = heights
    Z[:, :, 3] = made[:, :, 2]
    return Z
