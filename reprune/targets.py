"""From a target to counts: how many atoms each group keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from .graph import ChannelGroup
from .graph.cost import Cost

Counts = dict[str, int]
"""{group: atoms to keep}."""


def rounded(group: ChannelGroup, keep: int, min_keep: int, round_to: int) -> int:
    """`keep` atoms, or the next number of them that is at least `min_keep` channels and a multiple of
    `round_to`."""
    width = group.producers[0].rows.shape[1]
    least = -(-min_keep // width)
    multiple = round_to // math.gcd(round_to, width)
    keep = max(keep, least)
    return min(-(-keep // multiple) * multiple, group.atoms.size)


def reach(
    what: str,
    target: float,
    cost: Cost,
    groups: Sequence[ChannelGroup],
    atoms: int,
    counts_at: Callable[[float], Counts],
) -> Counts:
    """The counts of the smallest global sparsity at which at most `target` of `cost` is left, by bisection.

    The cost is predicted from counts alone: no clustering on the way.
    Raises ``ValueError`` if the smallest network that `counts_at` can give is still larger.
    """

    def left(counts: Counts) -> float:
        return cost.at(expected(groups, atoms, counts)) / cost.full

    low, high = 0.0, math.nextafter(1.0, 0.0)
    counts = counts_at(high)
    if left(counts) > target:
        raise ValueError(
            f"{what}: at most {target:g} of the full network cannot be reached; with these layers, "
            f"scope, min_keep and "
            f"round_to the smallest network has {left(counts):.4f}"
        )
    for _ in range(48):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        trial = counts_at(middle)
        if left(trial) <= target:
            high, counts = middle, trial
        else:
            low = middle
    return counts


def expected(
    groups: Sequence[ChannelGroup], atoms: int, counts: Mapping[str, int]
) -> npt.NDArray[np.float64]:
    """[atoms] the share of each atom's group that is kept."""
    share = np.ones(atoms)
    for group in groups:
        share[group.atoms] = counts.get(group.name, group.atoms.size) / group.atoms.size
    return share
