"""Compare the steps of a model's trace with those of its slice and find where they part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..aliases import Ints
from .computed import Computed
from .given import Given

Edge = tuple[Ints, Ints]

CALLS = "its calls depend on the number of channels: "
"""Prefix of the reason where calls differ."""


class Step(NamedTuple):
    """One call of an operation."""

    operation: str
    what: tuple[Any, ...] | None
    """The operation and its scalars, which must not change when channels are removed; None if it only moves
    values."""
    reads: tuple[str, ...]
    """The model's own tensors among its arguments."""
    touched: list[Ints]
    """The labels of its arguments."""
    flowing: list[Ints]
    """The labels of the activations among its arguments."""
    edges: list[Edge]
    """The positions that it united."""
    computed: Computed | None = None
    """What it was given, if it computes and can be run again on other values."""
    moved: Given | None = None
    """Its first result, if it only moves values."""


@dataclass(frozen=True)
class Parting:
    """The first difference between two runs in a stretch of steps."""

    stretch: int
    reason: str
    labels: list[Ints]
    """The labels of the activations at that point."""


def stretches(steps: Sequence[Step]) -> list[list[Step]]:
    """Split `steps` before each that reads tensors of the model.

    Both runs read the same tensors, so where they differ in one stretch, they can still be compared in all
    others.
    """
    found: list[list[Step]] = [[]]
    for step in steps:
        if step.reads:
            found.append([])
        found[-1].append(step)
    return found


def partings(before: Sequence[Step], after: Sequence[Step], complete: bool) -> Iterator[Parting]:
    """Yield where the run of a slice, `after`, differs from its model's.

    `complete` says that the slice's run reached its end.
    """
    old, new = stretches(before), stretches(after)
    for k, (mine, other) in enumerate(zip(old, new, strict=False)):
        if k and mine[0].reads != other[0].reads:
            yield _parting(k, mine[0], other[0])
            return
        ended = complete or k < len(new) - 1
        edge = _other_edge(mine, other)
        if edge is not None:
            yield Parting(k, *edge)
        elif (calls := _other_call(mine, other, ended)) is not None:
            yield _parting(k, *calls)
    if complete and len(old) != len(new):
        k = min(len(old), len(new))
        yield _parting(k, old[k][0] if len(old) > k else None, new[k][0] if len(new) > k else None)


def _other_edge(mine: list[Step], other: list[Step]) -> tuple[str, list[Ints]] | None:
    """Return what is wrong with the first positions that unite differently, and those positions."""
    left = [(step.operation, *edge) for step in mine for edge in step.edges]
    right = [edge for step in other for edge in step.edges]
    for (name, *pair), found in zip(left, right, strict=False):
        wrong = [
            ids[ids != new] if ids.shape == new.shape else ids
            for ids, new in zip(pair, found, strict=True)
            if not np.array_equal(ids, new)
        ]
        if wrong:
            return f"the model hard-codes channel indices or counts at {name} (the certificate)", wrong
    return None


def _other_call(mine: list[Step], other: list[Step], ended: bool) -> tuple[Step | None, Step | None] | None:
    """Return the first calls that differ.

    `ended` says that no more calls would have come to the `other` ones.
    """
    left, right = ([step for step in steps if step.what is not None] for steps in (mine, other))
    for a, b in zip(left, right, strict=False):
        if a.what != b.what:
            return a, b
    if len(left) > len(right) and ended:
        return left[len(right)], None
    return (None, right[len(left)]) if len(right) > len(left) else None


def _parting(stretch: int, mine: Step | None, other: Step | None) -> Parting:
    before, after = ("nothing" if s is None else str(s.what or s.operation) for s in (mine, other))
    all_ids = [ids for step in (mine, other) if step is not None for ids in step.flowing]
    return Parting(
        stretch,
        f"{CALLS}{before} becomes {after} (the certificate)",
        all_ids,
    )
