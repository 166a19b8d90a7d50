"""Step 1: the groups that are decided about, and how many atoms each keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from ..graph import ChannelGraph, has_gamma, mean_gamma
from ..graph.cost import size_cost
from ..sparsity import keep_counts, uniform_counts
from .bounds import MinKeep, least, of_those_present, rounded
from .budget import Budget, Counts
from .latency import within_latency
from .target import Target

BOUNDS = "with these layers, scope, ignore, min_keep and round_to the smallest network"


def in_scope(graph: ChannelGraph, scope: str) -> ChannelGraph:
    """The graph of the groups that ``scope`` is about."""
    if scope == "all":
        return graph
    added = [group for group in graph.groups if group.added]
    return graph.without(added, "its channels meet another layer's in an addition; scope='all' prunes them")


def ranked(graph: ChannelGraph, rule: str) -> ChannelGraph:
    """The graph of the groups that `rule` can rank; ``ValueError`` if there are none."""
    bare = [group for group in graph.groups if rule == "bn" and not has_gamma(group)]
    if not graph.groups or len(bare) == len(graph.groups):
        _nothing(graph, bool(bare))
    return graph.without(bare, "no BatchNorm behind it; rule='uniform' prunes it")


def counts_of(
    graph: ChannelGraph,
    target: Target,
    rule: str,
    round_to: int,
    min_keep: MinKeep,
    tensors: Mapping[str, Tensor],
    present: Mapping[str, int] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Counts, str]:
    """How many atoms each group keeps, by the BatchNorm scales in `tensors`, which are the full model's.

    `present`: how many atoms of each group are there at all (default: all); none keeps more.
    With them comes what was measured on the way, in words ("" if nothing was).
    Raises ``ValueError``, with what can be had, for a target out of reach.
    """
    gammas = {group.name: mean_gamma(group, tensors) for group in graph.groups} if rule == "bn" else {}
    sizes = {group.name: group.atoms.size for group in graph.groups}
    fewest = least(graph, min_keep)

    def bounded(name: str, keep: int) -> int:
        group = groups[name]
        there = sizes[name] if present is None else present[name]
        return of_those_present(group, rounded(group, keep, fewest[name], round_to), there, round_to)

    def counts_at(share: float) -> Counts:
        counts = keep_counts(gammas, share) if rule == "bn" else uniform_counts(sizes, share)
        return {name: bounded(name, keep) for name, keep in counts.items()}

    groups = {group.name: group for group in graph.groups}
    what, value = target
    if what == "sparsity":
        return counts_at(value), ""
    traced = graph.traced
    if what == "latency":
        budget = Budget(traced.flops, graph.groups, traced.atoms.count, counts_at)
        return within_latency(value, graph, budget, BOUNDS, progress)
    cost = {"flops": traced.flops, "params": traced.params}.get(what) or size_cost(
        graph.model, traced.labels, traced.atoms
    )
    return _within(what, value, Budget(cost, graph.groups, traced.atoms.count, counts_at)), ""


def _within(what: str, value: float, budget: Budget) -> Counts:
    """The counts that leave at most `value`: a share of the cost, or megabytes."""
    unit, full = (" MB", budget.cost.full / 1e6) if what == "size_mb" else (" of the full network", 1.0)
    if value >= full:
        raise ValueError(f"{what}: expected less than the {full:.4g} MB that the network has, got {value:g}")
    counts = budget.within(value / full)
    left = budget.left(counts) * full
    if left > value:
        raise ValueError(f"{what}: at most {value:g}{unit} cannot be reached; {BOUNDS} has {left:.4f}")
    return counts


def _nothing(graph: ChannelGraph, no_batch_norm: bool) -> None:
    if no_batch_norm:
        raise ValueError(
            "rule: 'bn' needs BatchNorm layers behind the convolutions and this model has none; use "
            "rule='uniform'"
        )
    reasons = "; ".join(f"{name}: {why}" for name, why in list(graph.skipped.items())[:5])
    raise ValueError(f"model: no layer of it may lose channels ({reasons})")
