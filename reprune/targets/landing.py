"""Compare a plan with its target and say where it missed."""

from __future__ import annotations

import numpy as np

from ..graph import AtomMask, ChannelGraph
from .bounds import Bounds
from .counts import cost_of_target
from .settings import Settings
from .target import Target

FAR = 0.05
"""Difference worth a note, as a fraction of the channels or of the full network's cost."""
EMPTIED = 0.1
"""A layer that keeps a smaller fraction of its channels, and as few as allowed, is worth a note."""


def landing_notes(graph: ChannelGraph, settings: Settings, kept: AtomMask) -> list[str]:
    """Return notes on how the plan that keeps `kept` [atoms] meets its target."""
    target = settings.target
    left = float(kept[np.concatenate([group.atoms for group in graph.groups])].mean())
    if left == 1:
        asked = "keep" if target[0] == "keep" else f"{target[0]}={target[1]:g} with min_keep and round_to"
        return [f"nothing is pruned: {asked} leaves every layer all its channels"]
    notes = []
    if (far := _far(graph, target, kept, left)) is not None:
        bounds = "layers keep whole channels, within min_keep and round_to"
        notes.append(f"{far}, where {target[1]:g} was asked for: {bounds}")
    smallest = Bounds(graph, settings.round_to, settings.min_keep).applied(
        {group.name: 0 for group in graph.groups}
    )
    emptied = [
        group.name
        for group in graph.groups
        if kept[group.atoms].sum() <= smallest[group.name] < EMPTIED * group.atoms.size
    ]
    if emptied and target[0] != "keep":
        some = ", ".join(emptied[:3]) + (", ..." if len(emptied) > 3 else "")
        notes.append(
            f"{len(emptied)} of {len(graph.groups)} layers keep as few channels as min_keep allows ({some}); "
            "a larger min_keep, or ignore, spares them"
        )
    return notes


def _far(graph: ChannelGraph, target: Target, kept: AtomMask, left: float) -> str | None:
    what, value = target
    if what == "sparsity" and abs(1 - left - value) > FAR:
        return f"{1 - left:.3f} of the channels leave"
    if what not in ("flops", "params", "size_mb"):
        return None
    cost = cost_of_target(graph, what)
    there, unit = cost.at(kept.astype(np.float64)), 1e6 if what == "size_mb" else cost.full
    if value * unit - there <= FAR * cost.full:
        return None
    return f"{there / unit:.3g} {'MB' if what == 'size_mb' else f'of the {what}'} are left"
