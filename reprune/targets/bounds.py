"""Bound single layers: the fewest channels, multiples, and layers that are not pruned."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from ..arguments import integer, nearest, shown, strings
from ..graph import ChannelGraph, ChannelGroup

MinKeep = int | Mapping[str, int]
"""The fewest channels: of every layer, or {name or pattern: of these layers}."""


def check_bounds(round_to: Any, min_keep: Any, ignore: Any) -> tuple[int, MinKeep, tuple[str, ...]]:
    """Return the bounds as plain numbers and names, or raise.

    Whether the names fit is checked against the graph later.
    """
    minimum: MinKeep
    if isinstance(min_keep, Mapping):
        names = strings(list(min_keep), "min_keep", "names of layers")
        minimum = {name: _count(min_keep[name], f"min_keep[{name!r}]") for name in names}
    else:
        minimum = _count(min_keep, "min_keep")
    return _count(round_to, "round_to"), minimum, strings(ignore, "ignore", "a list of names or patterns")


def _count(value: Any, name: str) -> int:
    try:
        return integer(value, name, 1)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected an integer of at least 1; got {shown(value)}") from None


def without_ignored(graph: ChannelGraph, ignore: Sequence[str]) -> ChannelGraph:
    """Return the graph without the groups that hold a layer which `ignore` names."""
    for pattern in ignore:
        names = set(_named(graph, pattern, "ignore"))
        for group in graph.groups:
            mine = [p.name for p in group.producers if p.name in names]
            if mine:
                graph = graph.without([group], f"{mine[0]} is in ignore")
    return graph


class Bounds:
    """How few atoms each group may keep, and in which steps."""

    def __init__(
        self,
        graph: ChannelGraph,
        round_to: int,
        min_keep: MinKeep,
        present: Mapping[str, int] | None = None,
    ) -> None:
        """Compute the bounds; `present` is each group's number of atoms present (default: all)."""
        self._round_to = round_to
        self._min_keep_of = _min_keep_of(graph, min_keep)
        self._groups = {group.name: group for group in graph.groups}
        self._present = present

    def applied(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return {group: atoms to keep}, the nearest to `counts` that the bounds allow."""
        return {name: self._bounded(self._groups[name], keep) for name, keep in counts.items()}

    def _bounded(self, group: ChannelGroup, keep: int) -> int:
        keep = _rounded(group, keep, self._min_keep_of[group.name], self._round_to)
        there = group.atoms.size if self._present is None else self._present[group.name]
        return _of_those_present(group, keep, there, self._round_to)


def _min_keep_of(graph: ChannelGraph, min_keep: MinKeep) -> dict[str, int]:
    """Return {group: the fewest channels to keep}, the largest `min_keep` of its layers."""
    if not isinstance(min_keep, Mapping):
        return {group.name: min_keep for group in graph.groups}
    of_layer: dict[str, int] = {}
    for pattern, count in min_keep.items():
        for name in _named(graph, pattern, "min_keep"):
            of_layer[name] = max(count, of_layer.get(name, 1))
    return {group.name: max(of_layer.get(p.name, 1) for p in group.producers) for group in graph.groups}


def _rounded(group: ChannelGroup, keep: int, min_keep: int, round_to: int) -> int:
    """Return `keep`, raised to at least `min_keep` channels and a multiple of `round_to`, in atoms."""
    width = group.producers[0].rows.shape[1]
    fewest = -(-min_keep // width)
    multiple = round_to // math.gcd(round_to, width)
    keep = max(keep, fewest)
    return min(-(-keep // multiple) * multiple, group.atoms.size)


def _of_those_present(group: ChannelGroup, keep: int, there: int, round_to: int) -> int:
    """Return `keep`, or the atoms of the `there` present that make a multiple of `round_to`."""
    if keep <= there:
        return keep
    multiple = round_to // math.gcd(round_to, group.producers[0].rows.shape[1])
    return there - there % multiple if there > multiple else there


def _named(graph: ChannelGraph, pattern: str, argument: str) -> list[str]:
    """Return the layers that `pattern` matches: by name, by a parent's name, or as a shell pattern."""
    layers = list(dict.fromkeys([*graph.channels, *graph.skipped]))
    found = [name for name in layers if fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")]
    if not found:
        raise ValueError(
            f"{argument}: no layer of the model that could be pruned is named {pattern!r} or lies inside it; "
            f"did you mean one of {nearest(pattern, layers)}?"
        )
    return found
