"""Choose the groups to decide on, and how many atoms each keeps (step 1)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from torch import Tensor

from ..aliases import Counts, Floats, Progress
from ..clustering.sparsity import Ranking, uniform_counts
from ..graph import ChannelGraph, has_gamma, mean_gamma
from ..graph.cost import Cost, size_cost
from .bounds import Bounds
from .budget import Budget, expected
from .latency import within_latency
from .settings import Settings

TIED = 0.01
"""Fraction of all channels with equal BatchNorm scales that is worth a note."""
BOUNDS = "with these layers, scope, ignore, min_keep and round_to the smallest network"


def in_scope(graph: ChannelGraph, scope: str) -> ChannelGraph:
    """Return the graph of the groups that `scope` is about."""
    if scope == "all":
        return graph
    added = [group for group in graph.groups if group.added]
    return graph.without(added, "its channels meet another layer's in an addition; scope='all' prunes them")


def rankable(graph: ChannelGraph, rule: str) -> ChannelGraph:
    """Return the graph of the groups that `rule` can rank; raise `ValueError` if there are none."""
    without_gamma = [group for group in graph.groups if rule == "bn" and not has_gamma(group)]
    if not graph.groups or len(without_gamma) == len(graph.groups):
        _nothing(graph, bool(without_gamma))
    return graph.without(without_gamma, "no BatchNorm behind it; rule='uniform' prunes it")


def counts_of(
    graph: ChannelGraph,
    settings: Settings,
    tensors: Mapping[str, Tensor],
    present: Mapping[str, int] | None = None,
    progress: Progress | None = None,
    gains: Mapping[str, Floats] = MappingProxyType({}),
) -> tuple[Counts, list[str]]:
    """Return each group's atoms to keep, by the full model's BatchNorm scales in `tensors`.

    `present` is the number of atoms of each group that exist (default: all); no group keeps more. For the
    rule "error" `gains` [A] are what the channels of a group explain, in the order in which they are picked;
    groups that have none lose the same fraction each. It also returns notes: what was measured, and how many
    scales tie. Raises a `ValueError` that says what is possible for a target out of reach.
    """
    bounds, rule = Bounds(graph, settings.round_to, settings.min_keep, present), settings.rule
    what, value = settings.target
    sizes = {group.name: group.atoms.size for group in graph.groups}
    ranking = None
    if rule == "bn":
        ranking = Ranking({group.name: mean_gamma(group, tensors) for group in graph.groups}, present)
    elif rule == "error" and gains:
        ranking = Ranking(_for_its_cost(graph, what, gains))
    alike = {name: size for name, size in sizes.items() if rule != "bn" and name not in gains}

    def counts_at(share: float) -> Counts:
        ranked = {} if ranking is None else ranking.counts(share)
        found = ranked | uniform_counts(alike, share)
        return bounds.applied({name: found[name] for name in sizes})

    notes = []
    if what == "sparsity":
        counts = counts_at(value)
    elif what == "latency":
        budget = Budget(graph.traced.flops, graph.groups, graph.traced.atoms.count, counts_at)
        counts, measured = within_latency(value, graph, budget, BOUNDS, progress)
        notes.append(measured)
    else:
        counts = _within(
            what,
            value,
            Budget(cost_of_target(graph, what), graph.groups, graph.traced.atoms.count, counts_at),
        )
    if rule == "bn" and ranking is not None:
        gone = sum(sizes[name] - keep for name, keep in counts.items())
        notes += _tied(ranking, sum(sizes.values()), ranking.leaving(value) if what == "sparsity" else gone)
    return counts, notes


def _for_its_cost(graph: ChannelGraph, what: str, gains: Mapping[str, Floats]) -> dict[str, Floats]:
    """Return what each pick gains per unit of the cost that the target limits, falling along a group.

    A channel costs what the full network would cost less without it; FLOPs, unless parameters are limited.
    """
    cost = cost_of_target(graph, what if what in ("params", "size_mb") else "flops")
    scores: dict[str, Floats] = {}
    for group in graph.groups:
        if group.name in gains:
            share = expected([group], graph.traced.atoms.count, {group.name: group.atoms.size - 1})
            falling = np.minimum.accumulate(np.maximum(gains[group.name], 0))
            scores[group.name] = falling / max(cost.full - cost.at(share), 1.0)
    if not any(score.any() for score in scores.values()):
        raise ValueError(
            "rule: 'error' found no channel that varies on the images and has a weight; use rule='uniform'"
        )
    return scores


def _tied(ranking: Ranking, channels: int, leaving: int) -> list[str]:
    """Return a note if some of many channels with equal BatchNorm scales are removed."""
    value, ties = ranking.tie(leaving)
    if ties <= max(1, TIED * channels):
        return []
    return [
        f"{ties} of {channels} BatchNorm scales are the same where the line is drawn (|gamma| = {value:g}); "
        "of these channels every layer loses the same share, as it does of all with rule='uniform'"
    ]


def check_reach(graph: ChannelGraph, settings: Settings) -> None:
    """Raise `ValueError` if the target is out of reach whatever the scales, or nothing can be pruned."""
    round_to, min_keep = settings.round_to, settings.min_keep
    smallest = Bounds(graph, round_to, min_keep).applied({group.name: 0 for group in graph.groups})
    if all(smallest[group.name] == group.atoms.size for group in graph.groups):
        raise ValueError(
            f"round_to: expected smaller numbers; with round_to={round_to} and min_keep={min_keep!r} every "
            "layer keeps all its channels, and nothing is ever pruned"
        )
    what, value = settings.target
    if what in ("flops", "params", "size_mb"):
        cost = cost_of_target(graph, what)
        _within(what, value, Budget(cost, graph.groups, graph.traced.atoms.count, lambda share: smallest))


def cost_of_target(graph: ChannelGraph, what: str) -> Cost:
    """Return the cost that "flops", "params" or "size_mb" limits."""
    traced = graph.traced
    known = {"flops": traced.flops, "params": traced.params}.get(what)
    return known or size_cost(graph.model, traced.labels, traced.atoms)


def _within(what: str, value: float, budget: Budget) -> Counts:
    """Return the counts that leave at most `value`, a fraction of the cost or megabytes."""
    unit, full = (" MB", budget.cost.full / 1e6) if what == "size_mb" else (" of the full network", 1.0)
    if value >= full:
        raise ValueError(f"{what}: expected less than the {full:.4g} MB that the network has; got {value:g}")
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
    raise ValueError(f"model: no layer can be pruned ({reasons})")
