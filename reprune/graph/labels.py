"""Define labels and solve which of them are coupled, that is kept or removed together.

A *label* is one position of one dimension of one parameter or buffer, an `int`. Tracing a model collects
statements about labels; solving them gives *atoms*, the smallest sets of positions that can be removed from a
network.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..aliases import Ints

LABEL = np.int32
"""The dtype of labels and atoms; a model has several hundred thousand of them."""

FIXED = -1
"""Label of a position that always exists: the zeros of a padding, a channel of the input image."""


def fixed(count: int) -> Ints:
    """Return [count] positions that always exist."""
    return np.full(count, FIXED, dtype=LABEL)


@dataclass
class Constraints:
    """What a trace says about labels, in the order in which it says it."""

    edges: list[tuple[Ints, Ints]] = field(default_factory=list)
    pins: list[tuple[Ints, str]] = field(default_factory=list)
    meetings: list[Ints] = field(default_factory=list)
    _fixed: dict[int, bool] = field(default_factory=dict)
    """Whether there are fixed positions among those of an edge, by the id of the array."""

    def unite(self, a: Ints, b: Ints, why: str) -> None:
        """Couple positions `a[i]` and `b[i]`: keep or remove both, and keep what meets a fixed one."""
        if a is b:
            return
        if (
            a.shape != b.shape
        ):  # only in a sliced model, where one of two equal sizes was cut to 1 and broadcasts
            self.pin(a, why)
            self.pin(b, why)
            return
        self.edges.append((a, b))
        if self._has_fixed(a) or self._has_fixed(b):
            lone = (a == FIXED) != (b == FIXED)
            if lone.any():
                self.pin(np.maximum(a, b)[lone], why)

    def have_no_fixed(self, all_ids: Iterable[Ints]) -> None:
        """Note that none of these arrays, which must live as long, has a fixed position."""
        self._fixed.update((id(ids), False) for ids in all_ids)

    def _has_fixed(self, ids: Ints) -> bool:
        """Look at each array once; those in edges live on, so none has the id of another."""
        found = self._fixed.get(id(ids))
        if found is None:
            found = self._fixed[id(ids)] = bool((ids == FIXED).any())
        return found

    def pin(self, a: Ints, why: str) -> None:
        """Require the positions to be kept; `why` is told to the user."""
        self.pins.append((a, why))

    def is_pinned(self, a: Ints) -> bool:
        """Return whether some of the positions are pinned so far, they themselves and not by others."""
        return any(np.isin(a, ids).any() for ids, _ in self.pins)

    def meet(self, a: Ints, b: Ints) -> None:
        """Record that channels of two layers meet in an addition."""
        differ = (a != b) & (a != FIXED) & (b != FIXED)
        if differ.any():
            self.meetings.append(a[differ])


@dataclass(frozen=True)
class Atoms:
    """The solution of the constraints."""

    atom_of: Ints
    """[labels] the atom of each label."""
    pinned: dict[int, str]
    """{atom that must be kept: the first reason}."""
    added: set[int]
    """Atoms in which channels of two layers meet in an addition."""

    @functools.cached_property
    def count(self) -> int:
        return int(self.atom_of.max(initial=-1)) + 1


def solve(constraints: Constraints, count: int) -> Atoms:
    """Return the connected components of `count` labels under the constraints' edges."""
    atom_of = components(constraints.edges, count)
    reasons = np.repeat(np.arange(len(constraints.pins)), [ids.size for ids, _ in constraints.pins])
    pins = np.concatenate([fixed(0), *(ids for ids, _ in constraints.pins)])
    real = pins != FIXED
    atoms, first = np.unique(atom_of[pins[real]], return_index=True)
    pins_of_atoms = reasons[real][first].tolist()
    pinned = {atom: constraints.pins[k][1] for atom, k in zip(atoms.tolist(), pins_of_atoms, strict=True)}
    added = np.unique(atom_of[np.concatenate([fixed(0), *constraints.meetings])])
    return Atoms(atom_of, pinned, set(added.tolist()))


def is_left(full: Sequence[Ints], small: Sequence[Ints], stays: npt.NDArray[np.bool_]) -> bool:
    """Return whether each of `small` is what is left of its counterpart in `full` where `stays` [labels].

    All are compared at once, as each comparison takes its time.
    """
    ids, sizes = np.concatenate([fixed(0), *full]), np.array([one.size for one in full], dtype=np.int64)
    there = (ids == FIXED) | stays[ids]
    left = np.add.reduceat(np.append(there, False), np.cumsum(sizes) - sizes, dtype=np.int64) * (sizes > 0)
    return np.array_equal(left, [one.size for one in small]) and np.array_equal(
        ids[there], np.concatenate([fixed(0), *small])
    )


TOGETHER = 2**16
"""Pairs of nodes that :func:`components` processes at once: enough for numpy, little memory."""


def components(edges: Sequence[tuple[Ints, Ints]], count: int) -> Ints:
    """Return the connected component [count] of each node, numbered by their smallest nodes."""
    root: Ints = np.arange(count, dtype=LABEL)
    batch: list[tuple[Ints, Ints]] = []
    pairs = 0
    for edge in edges:
        batch.append(edge)
        pairs += edge[0].size
        if pairs >= TOGETHER:
            root, batch, pairs = _joined(root, batch), [], 0
    root = _joined(root, batch)
    number: Ints = np.cumsum(root == np.arange(count, dtype=LABEL), dtype=LABEL)
    number -= 1
    return number[root]


def _joined(root: Ints, edges: Sequence[tuple[Ints, Ints]]) -> Ints:
    """Return `root` [nodes], the smallest node of each one's component, with `edges` joined.

    Hooks the larger root under the smaller and compresses, all edges at once, until no edge joins two roots.
    """
    none = np.empty(0, dtype=LABEL)
    a = np.concatenate([none, *(a for a, _ in edges)])
    b = np.concatenate([none, *(b for _, b in edges)])
    real = (a != FIXED) & (b != FIXED)
    a, b = a[real], b[real]
    while a.size:
        a, b = root[a], root[b]
        apart = a != b
        a, b = a[apart], b[apart]
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(above := root[root], root):
            root = above
    return root
