"""Check answers by the definitions and scipy's dendrograms, never by our own core.

Every function raises :class:`WrongAnswer`, so that no speed of a wrong answer is ever reported.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

OURS = 1e-12  # relative error that a height of reprune may have
PEERS = 1e-6  # and of another library: enough to see that it did the same work
FLOOR = 4 * float(np.finfo(float).eps)  # of the largest height: the rounding of the points themselves

Tree = npt.NDArray[np.float64]  # [n-1, 4]


class WrongAnswer(Exception):  # noqa: N818
    """Raised when an answer that was about to be timed is wrong."""


def same_tree(found: Tree, expected: Tree, who: str, tolerance: float = OURS) -> None:
    """Check that heights agree within a relative `tolerance` and that partitions at several levels are equal.

    The height of two nearly equal points may be off by four units in the last place of the largest height.

    Only levels where the next merge is clearly higher count: among equal heights any order is right.
    """
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise WrongAnswer(f"{who}: expected a dendrogram {list(expected.shape)}; got {list(found.shape)}")
    h, truth = found[:, 2], expected[:, 2]
    off = np.abs(h - truth)
    if (off > tolerance * truth + FLOOR * truth.max(initial=0.0)).any():
        error = float(np.max(off / np.maximum(truth, np.finfo(float).tiny)))
        raise WrongAnswer(f"{who}: a height is off by {error:.1e} relative; {tolerance:.0e} is allowed")
    for level in (len(h) // 4, len(h) // 2, 3 * len(h) // 4, len(h) - 2):
        clear = 0 <= level < len(h) - 1 and truth[level + 1] > truth[level] * (1 + 2 * tolerance)
        if clear and not np.array_equal(partition(found, level + 1), partition(expected, level + 1)):
            raise WrongAnswer(f"{who}: the clusters after {level + 1} merges are not those of scipy")


def partition(tree: Tree, merges: int) -> npt.NDArray[np.int64]:
    """Return the labels [n] after the first `merges` rows, numbered by first appearance."""
    n = len(tree) + 1
    owner = np.arange(n + merges)
    for row in range(merges - 1, -1, -1):  # from above: an owner is final before its parts look at it
        a, b = tree[row, :2].astype(int)
        if max(a, b) >= n + row or min(a, b) < 0:
            raise WrongAnswer(f"row {row} of a dendrogram merges a cluster that is not there yet")
        owner[a] = owner[b] = owner[n + row]
    return first_appearance(owner[:n])


def first_appearance(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Renumber the clusters from 0 in the order in which they appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    result: npt.NDArray[np.int64] = rank[inverse]
    return result


def picks(
    labels: npt.NDArray[Any], order: npt.NDArray[np.int64], gains: npt.NDArray[np.int64], who: str
) -> None:
    """Check that every pick is new and has the gain it claims, and that no filter had more at that step.

    A cluster counts for filter i up to the step that covers it, so the gains of all filters at all steps
    follow from the covering steps alone: one histogram per filter, in O(O I + O keep), not one greedy.
    """
    O, I = labels.shape
    keep = len(order)
    if len(np.unique(order)) != keep or not ((order >= 0) & (order < O)).all():
        raise WrongAnswer(f"{who}: the filters picked are not {keep} different ones")
    until = np.zeros((O, keep + 1), np.int64)  # [i, t]: clusters of filter i that step t covers; keep: none
    rows = np.arange(O)
    steps = np.full(int(labels.max(initial=0)) + 1, keep)  # [cluster] of one channel
    for j in range(I):
        column = labels[:, j]
        steps[:] = keep
        steps[column[order[::-1]]] = np.arange(keep - 1, -1, -1)  # written last: the earliest
        until[rows, steps[column]] += 1
    gain = until[:, ::-1].cumsum(axis=1)[:, ::-1][:, :keep]  # [i, s]: not covered before step s
    if not np.array_equal(gain[order, np.arange(keep)], gains):
        raise WrongAnswer(f"{who}: a pick does not cover the number of clusters it claims")
    short = np.flatnonzero(gain.max(axis=0) > gains)  # what is picked gains nothing any more
    if len(short):
        step = short[0]
        raise WrongAnswer(f"{who}: pick {step} covers {gains[step]} clusters, another filter covers more")


def cut_height(height: float, truths: npt.NDArray[np.float64], who: str) -> None:
    """Check that `height` is the largest of scipy's decisive merge heights `truths`, to 1e-12 relative."""
    truth = float(truths.max())
    if not abs(height - truth) <= OURS * truth:
        raise WrongAnswer(f"{who}: the cut is at {height!r}, by scipy at {truth!r}")
