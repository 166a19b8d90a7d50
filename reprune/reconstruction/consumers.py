"""Find which input channels of a weight belong to which atom of which group."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..aliases import Ints
from ..compensation.calls import Call
from ..graph import ChannelGraph


class Consumers:
    """The groups of a model, by the weights that take their channels."""

    def __init__(self, graph: ChannelGraph) -> None:
        self._labels, self._atom_of = graph.traced.labels, graph.traced.atoms.atom_of
        self._sizes = [group.atoms.size for group in graph.groups]
        self._names = [group.name for group in graph.groups]
        self._group_of = np.full(graph.traced.atoms.count, -1)
        self._place = np.full(graph.traced.atoms.count, -1)
        for number, group in enumerate(graph.groups):
            self._group_of[group.atoms] = number
            self._place[group.atoms] = np.arange(group.atoms.size)

    def of(self, call: Call) -> Iterator[tuple[str, Ints]]:
        """Yield each group whose channels `call` takes, with the input channels of its atoms.

        These are [A, taps]: an atom has several where a map was flattened, or in each group of a grouped
        convolution, and -1 where it has fewer than others.
        """
        atoms = self._input_atoms(call)
        groups = self._group_of[atoms]
        for number in np.unique(groups[groups >= 0]).tolist():
            columns = np.flatnonzero(groups == number)
            yield self._names[number], _table(self._place[atoms[columns]], columns, self._sizes[number])

    def _input_atoms(self, call: Call) -> Ints:
        """Return the atom of each input channel, [I].

        Where whole groups of a convolution leave, the outputs of each leave with its inputs and the rest
        computes what it did: no input counts. Where every group loses the same places, the dimension of the
        weight beside the rows says which, transposed or not.
        """
        dim = 0 if call.is_transposed and call.groups == 1 else 1
        labels = self._labels.get((call.name, dim))
        if labels is None:
            return np.empty(0, dtype=np.int64)
        atoms: Ints = np.tile(self._atom_of[labels], call.groups)
        return atoms


def _table(places: Ints, columns: Ints, size: int) -> Ints:
    """Return [size, taps]: `columns`, ascending, by the place [columns] of each."""
    order = np.argsort(places, kind="stable")
    counts = np.bincount(places, minlength=size)
    first = np.cumsum(counts) - counts
    table = np.full((size, counts.max()), -1)
    table[places[order], np.arange(columns.size) - first[places[order]]] = columns[order]
    return table
