"""Select the filters of one layer: cluster every channel at a common cut, then cover (REPrune, Eq. 1-7)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .coverage import max_coverage
from .cut import cut
from .linkage import linkage


def select_layer(
    tables: Sequence[npt.NDArray[np.floating]], keep: int, seed: int, ties: str, name: str
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[float], npt.NDArray[np.int32]]:
    """Return order [keep], gains [keep], heights [tables] and labels [O, sum of I].

    The layer's tables of points are [I, O, d], keep < O.
    """
    heights, columns = [], []
    for table in tables:
        trees = [linkage(points.astype(np.float64), "ward") for points in table]
        merges = len(trees[0]) + 1 - keep
        # h = max over the channels of the height of the merge that leaves `keep` clusters
        heights.append(max(float(Z[merges - 1, 2]) for Z in trees))
        columns += [cut(Z, heights[-1]) for Z in trees]
    labels = np.stack(columns, axis=1)
    norms = squared_norms(tables) if ties == "norm" else None
    order, gains = max_coverage(labels, keep, seed, name, norms)
    return order, gains, heights, labels


def squared_norms(tables: Sequence[npt.NDArray[np.floating]]) -> npt.NDArray[np.float64]:
    """Return the squared L2 norm [O] of every filter, summed in order (table, channel, coordinate).

    The order is part of the tie rule: norms that differ in the last bit are not tied. Where a square would
    overflow or underflow, all numbers are scaled first, the largest to 2^480: the norms are then scaled by a
    power of two.
    """
    sizes = np.concatenate([np.abs(table[table != 0]).ravel() for table in tables]).astype(np.float64)
    extreme = sizes.size > 0 and (sizes.max() >= 2.0**480 or sizes.min() < 2.0**-500)
    shift = 480 - int(np.frexp(sizes.max())[1]) if extreme else 0
    norms = np.zeros(tables[0].shape[1])
    for table in tables:
        for points in np.ldexp(table.astype(np.float64), shift):  # [O, d]
            for coordinate in points.T:
                norms += coordinate * coordinate
    return norms
