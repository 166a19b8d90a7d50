"""Step 1 on a whole model: from a target to counts, how many atoms each group keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .graph import ChannelGraph, ChannelGroup, mean_gamma, named_tensors
from .graph.cost import Cost
from .sparsity import keep_counts, uniform_counts

Counts = dict[str, int]
"""{group: atoms to keep}."""


Target = tuple[str, Any]
"""(what, how much): ("flops", 0.5)."""


def target_of(
    sparsity: float | None, flops: float | None, params: float | None, keep: Mapping[str, int] | None
) -> Target:
    """The one target that was given."""
    shares = {"sparsity": sparsity, "flops": flops, "params": params}
    given: list[Target] = [(name, value) for name, value in shares.items() if value is not None]
    if keep is not None:
        given.append(("keep", dict(keep)))
    if len(given) != 1:
        names = ", ".join(name for name, _ in given) or "none"
        raise ValueError(f"expected exactly one target of sparsity, flops, params and keep; got {names}")
    name, value = given[0]
    if name != "keep":
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"{name}: expected a number between 0 and 1, got {value!r}")
        if not 0 < value < 1:
            raise ValueError(f"{name}: expected a number between 0 and 1 (exclusive), got {value!r}")
    return name, value


def choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")


def in_scope(graph: ChannelGraph, scope: str) -> ChannelGraph:
    """The graph of the groups that ``scope`` is about."""
    if scope == "all":
        return graph
    added = [group for group in graph.groups if group.added]
    return graph.without(added, "its channels meet another layer's in an addition; scope='all' prunes them")


def ranked(graph: ChannelGraph, rule: str) -> ChannelGraph:
    """The graph of the groups that `rule` can rank; ``ValueError`` if there are none."""
    tensors = named_tensors(graph.model)
    bare = [group for group in graph.groups if rule == "bn" and mean_gamma(group, tensors) is None]
    if not graph.groups or len(bare) == len(graph.groups):
        _nothing(graph, bool(bare))
    return graph.without(bare, "no BatchNorm behind it; rule='uniform' prunes it")


def counts_of(
    graph: ChannelGraph,
    target: Target,
    rule: str,
    round_to: int,
    min_keep: int,
    tensors: Mapping[str, Tensor],
    present: Mapping[str, int] | None = None,
) -> Counts:
    """How many atoms each group keeps, by the BatchNorm scales in `tensors`, which are the full model's.

    `present`: how many atoms of each group are there at all (default: all); none keeps more.
    """
    gammas = {group.name: mean_gamma(group, tensors) for group in graph.groups} if rule == "bn" else {}
    sizes = {group.name: group.atoms.size for group in graph.groups}

    def counts_at(share: float) -> Counts:
        counts = keep_counts(gammas, share) if rule == "bn" else uniform_counts(sizes, share)
        return {
            g.name: _of_those(g, rounded(g, counts[g.name], min_keep, round_to), present, round_to)
            for g in graph.groups
        }

    what, value = target
    if what == "sparsity":
        return counts_at(value)
    cost = graph.traced.flops if what == "flops" else graph.traced.params
    return reach(what, value, cost, graph.groups, graph.traced.atoms.count, counts_at)


def _of_those(group: ChannelGroup, keep: int, present: Mapping[str, int] | None, round_to: int) -> int:
    """`keep`, or as many of the atoms present as are a multiple of `round_to` channels."""
    there = group.atoms.size if present is None else present[group.name]
    if keep <= there:
        return keep
    multiple = round_to // math.gcd(round_to, group.producers[0].rows.shape[1])
    return there - there % multiple if there > multiple else there


def _nothing(graph: ChannelGraph, no_batch_norm: bool) -> None:
    if no_batch_norm:
        raise ValueError(
            "rule: 'bn' needs BatchNorm layers behind the convolutions and this model has none; use "
            "rule='uniform'"
        )
    reasons = "; ".join(f"{name}: {why}" for name, why in list(graph.skipped.items())[:5])
    raise ValueError(f"model: no convolution of it may lose channels ({reasons})")


def rounded(group: ChannelGroup, keep: int, min_keep: int, round_to: int) -> int:
    """`keep` atoms, or the next number of them that is at least `min_keep` channels and a multiple of
    `round_to`."""
    width = group.producers[0].rows.shape[1]
    least = -(-min_keep // width)
    multiple = round_to // math.gcd(round_to, width)
    keep = max(keep, least)
    return min(-(-keep // multiple) * multiple, group.atoms.size)


def reach(
    what: str,
    target: float,
    cost: Cost,
    groups: Sequence[ChannelGroup],
    atoms: int,
    counts_at: Callable[[float], Counts],
) -> Counts:
    """The counts of the smallest global sparsity at which at most `target` of `cost` is left, by bisection.

    The cost is predicted from counts alone: no clustering on the way.
    Raises ``ValueError`` if the smallest network that `counts_at` can give is still larger.
    """

    def left(counts: Counts) -> float:
        return cost.at(expected(groups, atoms, counts)) / cost.full

    low, high = 0.0, math.nextafter(1.0, 0.0)
    counts = counts_at(high)
    if left(counts) > target:
        raise ValueError(
            f"{what}: at most {target:g} of the full network cannot be reached; with these layers, "
            f"scope, min_keep and "
            f"round_to the smallest network has {left(counts):.4f}"
        )
    for _ in range(48):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        trial = counts_at(middle)
        if left(trial) <= target:
            high, counts = middle, trial
        else:
            low = middle
    return counts


def expected(
    groups: Sequence[ChannelGroup], atoms: int, counts: Mapping[str, int]
) -> npt.NDArray[np.float64]:
    """[atoms] the share of each atom's group that is kept."""
    share = np.ones(atoms)
    for group in groups:
        share[group.atoms] = counts.get(group.name, group.atoms.size) / group.atoms.size
    return share
