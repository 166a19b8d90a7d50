"""Decide an event: counts, clusters and coverage of the channels present, then regrowth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..aliases import Ints
from ..clustering.problem import LayerProblem
from ..distributed import owners, rank_and_size, shared
from ..graph import AtomMask, ChannelGraph, ChannelGroup, Producer
from ..layer_problems import choose, problem_tables, require_finite
from ..targets import Settings, counts_of
from .regrowth import blocks, draw, residual_norms, span


@dataclass(frozen=True)
class GroupDecision:
    """What was decided about one group."""

    kept: Ints
    """Atoms that were selected."""
    regrown: Ints
    """Atoms that are regrown."""
    covered: int
    clusters: int
    """Over all input channels; both 0 if the group kept all it had."""


@dataclass(frozen=True)
class FullWeights:
    """The full-size values on which decisions are based."""

    tensors: Mapping[str, Tensor]
    """Full-size parameters; absent channels have their most recent values."""
    kernel: Callable[[Producer], Tensor]
    """[O, I, ...] full-size kernels of a convolution."""
    inputs: Mapping[str, Ints]
    """{convolution: [I] the atom of each input channel; -1: always present}."""
    in_parts: bool = False
    """Whether each process has a part of the tensors, so that to read one is a collective call."""


def decide(
    graph: ChannelGraph, source: FullWeights, alive: AtomMask, settings: Settings, event: int, share: float
) -> dict[str, GroupDecision]:
    """Return {group: what is kept of the atoms `alive`, and what is regrown}.

    A fraction `share` of each group's atoms is regrown. With several processes each works on some of the
    groups, and all return the same or raise.
    """
    everyone = shared(lambda: _own_part(graph, source, alive, settings, event, share))
    found = {name: result for part in everyone for name, result in part.items()}
    return {group.name: found[group.name] for group in graph.groups}


def _own_part(
    graph: ChannelGraph, source: FullWeights, alive: AtomMask, settings: Settings, event: int, share: float
) -> dict[str, GroupDecision]:
    """Return what this process decides."""
    counts = _counts(graph, source.tensors, alive, settings)
    rank, size = rank_and_size()
    costs = [cost(group, source, alive, counts[group.name]) for group in graph.groups]
    found: dict[str, GroupDecision] = {}
    if not source.in_parts:
        owner = owners(costs, size)
        mine = [group for k, group in enumerate(graph.groups) if owner[k] == rank]
        kernels = {p.name: _live_kernel(p, source, alive) for group in mine for p in group.producers}
        return _decided(mine, kernels, alive, counts, settings, event, share)
    order = sorted(range(len(costs)), key=lambda k: (-costs[k], k))
    for begin in range(0, len(order), size):  # one group for each process, of about the same cost
        mine, kernels = [], {}
        for place, k in enumerate(order[begin : begin + size]):
            whole = {p.name: _live_kernel(p, source, alive) for p in graph.groups[k].producers}
            if place == rank:
                mine, kernels = [graph.groups[k]], whole
            del whole  # that of another process is not needed here
        found |= _decided(mine, kernels, alive, counts, settings, event, share)
    return found


def _decided(
    mine: Sequence[ChannelGroup],
    kernels: Mapping[str, Tensor],
    alive: AtomMask,
    counts: Mapping[str, int],
    settings: Settings,
    event: int,
    share: float,
) -> dict[str, GroupDecision]:
    """Return what is decided about the groups `mine`, whose layers have `kernels` [O, I', ...]."""
    require_finite(kernels, {})

    def problem(group: ChannelGroup) -> LayerProblem:
        rows = [(kernels[p.name], p.rows[alive[group.atoms]]) for p in group.producers]
        return LayerProblem(group.name, problem_tables(rows, settings, group.heads), counts[group.name])

    # nothing else refers to the problems, so that their tables are gone before the regrowth
    chosen = choose([problem(group) for group in mine], settings, settings.seed + event)
    found: dict[str, GroupDecision] = {}
    for group, choice in zip(mine, chosen, strict=True):
        there = np.flatnonzero(alive[group.atoms])
        kept = there[choice.keep]
        count = int(share * group.atoms.size)
        back = _regrown(group, kernels, kept, count, settings.seed, event)
        whole = kept.size == there.size
        found[group.name] = GroupDecision(
            kept=group.atoms[kept],
            regrown=group.atoms[back],
            covered=0 if whole else choice.covered,
            clusters=0 if whole else choice.clusters,
        )
    return found


def cost(group: ChannelGroup, source: FullWeights, alive: AtomMask, keep: int) -> float:
    """Return about how many ns one thread takes to cluster `group` and cover its clusters.

    Only ratios matter. Kernels of one number are sorted, so their cost is linear in the number of filters n;
    for d numbers there is a term in n d and one in n^2 d. The constants are fitted to the layers of ResNet-50
    with half of the filters kept, where 2, 3 and 4 processes get measured loads within 12 % of each other.

    The C++ extension has a simpler model for the order of the layers of one process
    (csrc/selection/select.cpp): there all threads help with the last layers, so it needs no seconds.
    """
    n = int(alive[group.atoms].sum())
    if keep == n:
        return 0.0
    total = 0.0
    for producer in group.producers:
        atoms = source.inputs[producer.name]
        channels = int((alive[atoms] | (atoms < 0)).sum())
        d, width = producer.kernel[0, 0].numel(), producer.rows.shape[1]
        channels, d = (channels, d * width) if group.heads else (channels * width, d)
        total += channels * n * (90.0 if d == 1 else d * (26 + 0.044 * n))
    return total


def _counts(
    graph: ChannelGraph, tensors: Mapping[str, Tensor], alive: AtomMask, settings: Settings
) -> Mapping[str, int]:
    """Return the counts (step 1); the scale of an absent channel counts as 0."""
    scales: dict[str, Tensor] = {}
    for group in graph.groups:
        for name, positions, where in group.gammas:
            scale = scales.setdefault(name, tensors[name].detach().cpu().clone())
            scale[torch.from_numpy(positions[~alive[group.atoms[where]]])] = 0
    present = {group.name: int(alive[group.atoms].sum()) for group in graph.groups}
    return counts_of(graph, settings, scales, present)[0]


def _live_kernel(producer: Producer, source: FullWeights, alive: AtomMask) -> Tensor:
    """Return the kernels of the input channels that are present, [O, I', ...]."""
    atoms = source.inputs[producer.name]
    there = np.flatnonzero(alive[atoms] | (atoms < 0))
    kernel = source.kernel(producer)
    return kernel if there.size == kernel.shape[1] else kernel[:, torch.from_numpy(there).to(kernel.device)]


def _regrown(
    group: ChannelGroup, kernels: Mapping[str, Tensor], kept: Ints, count: int, seed: int, event: int
) -> Ints:
    """Return positions in `group` of `count` dropped channels to regrow, or of all if there are fewer."""
    dropped = np.setdiff1d(np.arange(group.atoms.size), kept)
    if count == 0 or dropped.size <= count:
        return dropped[:count]
    basis = span(_filters(group, kernels, kept))
    norms = np.zeros(dropped.size)
    for block in blocks(dropped.size, basis.shape[1]):
        norms[block] = residual_norms(_filters(group, kernels, dropped[block]), basis)
    return dropped[draw(norms, count, seed, event, group.name)]


def _filters(
    group: ChannelGroup, kernels: Mapping[str, Tensor], positions: Ints
) -> npt.NDArray[np.floating[Any]]:
    """Return what writes to the channels at `positions` in `group`: [positions, numbers]."""
    found = []
    for producer in group.producers:
        kernel = kernels[producer.name].detach().flatten(1)
        for row in producer.rows.T:  # [A] a channel of each atom, -1 where it has none
            channels = row[positions]
            there = torch.from_numpy(np.maximum(channels, 0)).to(kernel.device)
            rows = kernel.index_select(0, there).cpu()
            filters = (rows if rows.dtype == torch.float64 else rows.float()).numpy()
            filters[channels < 0] = 0.0
            found.append(filters)
    return found[0] if len(found) == 1 else np.concatenate(found, axis=1)
