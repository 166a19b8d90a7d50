"""Cut a dendrogram at a height."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def cut(Z: npt.NDArray[np.float64], height: float) -> npt.NDArray[np.int32]:
    """Return labels [n] of Z [n-1, 4], 0-based and numbered by first appearance.

    A merge counts when its height and the heights of all merges below it are <= `height`.
    """
    n = len(Z) + 1
    members: list[list[int]] = [[i] for i in range(n)]
    counts = [True] * n  # does everything in this cluster belong together?
    labels = np.arange(n)
    for a, b, h, _ in Z:
        members.append(members[int(a)] + members[int(b)])
        counts.append(counts[int(a)] and counts[int(b)] and h <= height)
        if counts[-1]:
            labels[members[-1]] = min(members[-1])
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse].astype(np.int32)
