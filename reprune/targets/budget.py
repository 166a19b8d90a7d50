"""Turn a budget of FLOPs, parameters or bytes into counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..aliases import Counts
from ..graph import ChannelGroup
from ..graph.cost import Cost

"""{group: atoms to keep}."""


@dataclass(frozen=True)
class Budget:
    """A cost, and the counts that a global sparsity gives."""

    cost: Cost
    groups: Sequence[ChannelGroup]
    atoms: int
    counts_at: Callable[[float], Counts]

    def left(self, counts: Counts) -> float:
        """Return the fraction of the cost left with `counts`; nothing is clustered."""
        return self.cost.at(expected(self.groups, self.atoms, counts)) / self.cost.full

    def smallest(self) -> Counts:
        """Return the counts of the smallest network that the bounds allow."""
        return self.counts_at(math.nextafter(1.0, 0.0))

    def within(self, share: float) -> Counts:
        """Return the counts of the smallest sparsity that leaves at most `share` of the cost.

        They are found by bisection; if the smallest network is larger, they are its counts.
        """
        low, high = 0.0, math.nextafter(1.0, 0.0)
        counts, larger = self.smallest(), dict[str, int]()
        for _ in range(48):
            middle = (low + high) / 2
            if middle in (low, high):
                break
            trial = self.counts_at(middle)
            if self.left(trial) <= share:
                high, counts = middle, trial
            else:
                low, larger = middle, trial
        return self._filled(counts, larger, share)

    def _filled(self, counts: Counts, larger: Counts, share: float) -> Counts:
        """Enlarge as many groups of `counts`, in order, to their size in `larger` as fit.

        Groups of one size change their counts together, and a step of all of them can miss the budget by a
        few per cent.
        """
        for name, count in larger.items():
            if count > counts[name]:
                trial = {**counts, name: count}
                if self.left(trial) <= share:
                    counts = trial
        return counts


def expected(
    groups: Sequence[ChannelGroup], atoms: int, counts: Mapping[str, int]
) -> npt.NDArray[np.float64]:
    """Return, per atom [atoms], the fraction of its group that is kept."""
    share = np.ones(atoms)
    for group in groups:
        share[group.atoms] = counts.get(group.name, group.atoms.size) / group.atoms.size
    return share
