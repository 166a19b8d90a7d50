"""Convert counts that the user gives layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

from ..aliases import Counts
from ..arguments import nearest
from ..graph import ChannelGraph


def counts_from_keep(graph: ChannelGraph, keep: Mapping[str, int]) -> Counts:
    """Convert `keep` to atoms of groups."""
    group_of = {p.name: (group, p) for group in graph.groups for p in group.producers}
    counts: Counts = {}
    for name, channels in keep.items():
        if name in graph.skipped:
            raise ValueError(f"keep: {name} cannot be pruned: {graph.skipped[name]}")
        if name not in group_of:
            raise ValueError(
                f"keep: no layer that may lose channels is named {name!r}; "
                f"did you mean one of {nearest(name, group_of)}?"
            )
        group, producer = group_of[name]
        size, width = graph.channels[name].size, producer.rows.shape[1]
        fixed = size - group.atoms.size * width
        atoms, odd = divmod(channels - fixed, width)
        if not 1 <= channels <= size or odd or atoms < 1:
            step = f" in steps of {width}" if width > 1 else ""
            raise ValueError(
                f"keep: {name} can keep {fixed + width} to {size} channels{step}; got {channels}"
            )
        if counts.setdefault(group.name, atoms) != atoms:
            raise ValueError(f"keep: {name} shares its channels with {group.name}; give both the same number")
    if not counts:
        raise ValueError("keep: expected at least one layer; got an empty dictionary")
    return counts
