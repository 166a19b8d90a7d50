"""Find which channels of a model are coupled, by label propagation, and certify the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from ..aliases import Progress
from ..modules.slicing import named_tensors
from .blame import NotRepeatableError, find_guilty
from .certificate import AtomMask, Failure, certify
from .custom import register_rule
from .groups import LAYERS, ChannelGroup, Producer, find_groups, has_gamma, mean_gamma, output_first
from .preserving import Guard, preserving
from .traced import Example, TracedModel, as_example, trace_model
from .watch import Watch, watching

__all__ = [
    "LAYERS",
    "AtomMask",
    "ChannelGraph",
    "ChannelGroup",
    "Guard",
    "Producer",
    "build_graph",
    "has_gamma",
    "mean_gamma",
    "output_first",
    "preserving",
    "register_rule",
]


@dataclass(frozen=True)
class ChannelGraph:
    """The channel groups of a model, certified."""

    model: nn.Module
    example: Example
    traced: TracedModel
    groups: tuple[ChannelGroup, ...]
    skipped: dict[str, str]
    """{layer: why it cannot be pruned}."""
    channels: dict[str, Any]
    """{layer: [O] the atom of each output channel}."""

    def everything(self) -> AtomMask:
        """Return a mask [atoms] that keeps all."""
        return np.ones(self.traced.atoms.count, dtype=bool)

    def certify(self, kept: AtomMask) -> Failure | None:
        """Check one choice of atoms on the model itself; return None if it is right."""
        return certify(self.model, self.example, self.traced, self.groups, kept)

    def on(self, model: nn.Module, example: Example) -> ChannelGraph:
        """Return the same groups on `model`, the same network with other values, which is traced again."""
        return replace(self, model=model, example=example, traced=trace_model(model, example)[0])

    def without(self, groups: Sequence[ChannelGroup], reason: str) -> ChannelGraph:
        """Return the graph without `groups`, whose layers are skipped for `reason`."""
        out = {group.name for group in groups}
        skipped = {p.name: reason for group in groups for p in group.producers}
        left = tuple(group for group in self.groups if group.name not in out)
        return replace(self, groups=left, skipped={**self.skipped, **skipped})

    def certified(self, kept: AtomMask) -> ChannelGraph:
        """Return the graph without the groups in which `kept` fails its certificate; itself if none does."""
        try:
            return self._certified(kept)
        except NotRepeatableError as error:
            return self.without(self.groups, str(error))

    def _certified(self, kept: AtomMask) -> ChannelGraph:
        if not self.groups:
            return self
        guilty = find_guilty(self.groups, kept, lambda mask: self.certify(self.traced.filled(mask)))
        graph = self
        for group in self.groups:
            if group.name in guilty:
                graph = graph.without([group], guilty[group.name])
        return graph


def build_graph(
    model: nn.Module,
    example_inputs: Any,
    progress: Progress | None = None,
    layers: str = "conv",
    time_limit: float | None = None,
) -> ChannelGraph:
    """Find the channel groups of `model` by running it on `example_inputs`.

    `layers` says which layers' output channels can be pruned: "conv", "linear" or "all".

    Groups that the certificate rejects are skipped with its reason. `progress("trace", done, total)` is
    called whenever the passes reach tensors of the model. The model is left as it was; it may be on the
    device "meta", where nothing is computed.

    Raises `ValueError` that names the operation where the model fails or cannot be followed, and
    `TimeoutError` after `time_limit` seconds.
    """
    example = as_example(example_inputs)
    watch = Watch(progress, time_limit, len(named_tensors(model)))
    with watching(watch):
        graph = _traced(model, example, layers)
        try:
            return graph._certified(_probe(graph))
        except NotRepeatableError:  # perhaps as the first run has filled a cache outside of the model
            graph = _traced(model, example, layers)
            return graph.certified(_probe(graph))


def _traced(model: nn.Module, example: Example, layers: str) -> ChannelGraph:
    """Return the graph of `model`, not certified yet."""
    traced, trace = trace_model(model, example)
    groups, skipped, channels = find_groups(model, trace, traced.labels, traced.atoms, layers)
    return ChannelGraph(model, example, traced, tuple(groups), skipped, channels)


def _probe(graph: ChannelGraph) -> AtomMask:
    """Return a mask that drops a different random fraction of each group."""
    rng = np.random.default_rng(0)
    kept = graph.everything()
    for group in graph.groups:
        drop = int(rng.integers(1, max(2, group.atoms.size - 1)))
        kept[rng.choice(group.atoms, drop, replace=False)] = False
    return graph.traced.filled(kept)
