"""Group the channels of a model that are coupled, and certify a choice among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from ..modules.heads import is_attention
from ..modules.wrappers import named_modules
from .blame import NotRepeatableError, find_guilty
from .certificate import AtomMask, Failure, certify
from .groups import ChannelGroup
from .traced import Example, TracedModel, trace_model

HEADS = (
    "has attention heads, and the module around does not follow when some leave (it has their number or "
    "width fixed, or under a name that is not known)"
)
"""Prefix of the reason why heads cannot leave."""


@dataclass(frozen=True)
class ChannelGraph:
    """The channel groups of a model."""

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

    def widest(self) -> int:
        """Return the most channels of any group."""
        return max((len(group.atoms) for group in self.groups), default=0)

    def without(self, groups: Sequence[ChannelGroup], reason: str) -> ChannelGraph:
        """Return the graph without `groups`, whose layers are skipped for `reason`."""
        out = {group.name for group in groups}
        skipped = {p.name: reason for group in groups for p in group.producers}
        left = tuple(group for group in self.groups if group.name not in out)
        return replace(self, groups=left, skipped={**self.skipped, **skipped})

    def certified(self, kept: AtomMask) -> ChannelGraph:
        """Return the graph without the groups in which `kept` fails its certificate; itself if none does."""
        try:
            return self.certified_if_repeatable(kept)
        except NotRepeatableError as error:
            return self.without(self.groups, str(error))

    def certified_if_repeatable(self, kept: AtomMask) -> ChannelGraph:
        """Return :meth:`certified`; raise `NotRepeatableError` if the model runs otherwise each time."""
        if not self.groups:
            return self
        guilty = find_guilty(
            self.groups, kept, lambda mask: self.certify(self.traced.filled(mask)), self._run_alike
        )
        graph = self
        for group in self.groups:
            if group.name in guilty:
                reason = guilty[group.name]
                graph = graph.without([group], f"{HEADS}: {reason}" if group.heads else reason)
        return graph

    def _run_alike(self, group: ChannelGroup) -> list[ChannelGroup]:
        """Return `group`, and with it all others of attention heads in modules of the same classes."""
        if not group.heads:
            return [group]
        modules = named_modules(self.model)

        def kinds(one: ChannelGroup) -> set[type]:
            around = [
                p.name if is_attention(modules[p.name]) else p.name.rpartition(".")[0] for p in one.producers
            ]
            return {type(modules[name]) for name in around}

        return [one for one in self.groups if one.heads and kinds(one) == kinds(group)]

    def probe(self) -> AtomMask:
        """Return a mask that drops a different random fraction of each group."""
        rng = np.random.default_rng(0)
        kept = self.everything()
        for group in self.groups:
            drop = int(rng.integers(1, max(2, group.atoms.size - 1)))
            kept[rng.choice(group.atoms, drop, replace=False)] = False
        return self.traced.filled(kept)
