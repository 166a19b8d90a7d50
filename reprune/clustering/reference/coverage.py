"""Cover clusters greedily (REPrune, Eq. 6-7)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .ties import tie_key, tie_values


def max_coverage(
    labels: npt.NDArray[np.int32],
    keep: int,
    seed: int,
    name: str,
    norms: npt.NDArray[np.float64] | None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return order [keep] and gains [keep] for labels [O, I].

    Among equal gains the larger norm wins, then the smaller hash.
    """
    O, I = labels.shape
    key = tie_key(seed, name)
    covered = [set[int]() for _ in range(I)]
    left = np.arange(O)
    order, gains = np.empty(keep, np.int64), np.empty(keep, np.int64)
    uncovered = np.ones((O, I), dtype=bool)  # is the cluster of kernel (i, j) still uncovered?
    for step in range(keep):
        gain = uncovered[left].sum(axis=1)
        tied = left[gain == gain.max()]
        if norms is not None:
            tied = tied[norms[tied] == norms[tied].max()]
        pick = tied[tie_values(key, step, tied).argmin()]
        order[step], gains[step] = pick, gain.max()
        for j in range(I):
            covered[j].add(int(labels[pick, j]))
        uncovered &= labels != labels[pick]
        left = left[left != pick]
    assert gains.sum() == sum(map(len, covered))
    return order, gains
