"""Run the backend "reference": the oracle, problem by problem."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...aliases import Floats
from .. import reference
from ..arrays import integer_table
from ..arrays import like as restore
from ..arrays import to_floats as floats
from ..problem import LayerProblem, Selection
from .protocol import Report

__all__ = ["cover", "cut", "floats", "integer_table", "link", "pairwise", "restore", "select"]


def link(batches: Sequence[Floats], names: Sequence[str], method: str) -> list[npt.NDArray[np.float64]]:
    """Compute the dendrograms one by one in float64."""
    return [
        np.stack([reference.linkage(problem.astype(np.float64), method) for problem in batch])
        if len(batch)
        else np.empty((0, batch.shape[1] - 1, 4))
        for batch in batches
    ]


def pairwise(batches: Sequence[Floats], names: Sequence[str]) -> list[npt.NDArray[np.float64]]:
    """Compute the distances problem by problem."""
    return [
        np.stack([reference.pairwise(problem.astype(np.float64)) for problem in batch])
        if len(batch)
        else np.empty((0, *[batch.shape[1]] * 2))
        for batch in batches
    ]


def cut(trees: npt.NDArray[np.float64], heights: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """Label the trees one by one."""
    labels = np.empty((len(trees), trees.shape[1] + 1), np.int32)
    for k, tree in enumerate(trees):
        labels[k] = reference.cut(tree, heights[k])
    return labels


def cover(
    labels: npt.NDArray[Any], keep: int, seed: int, name: str, norms: npt.NDArray[np.float64] | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Call :func:`reprune.clustering.reference.max_coverage`."""
    return reference.max_coverage(labels, keep, seed, name, norms)


def select(
    problems: Sequence[LayerProblem], seed: int, ties: str, labels: bool, report: Report | None
) -> list[Selection]:
    """Select from the problems one by one; labels are returned whatever `labels` says."""
    results = []
    for count, problem in enumerate(problems, 1):
        order, gains, cuts, table = reference.select_layer(
            problem.tables, problem.keep, seed, ties, problem.name
        )
        clusters = table.max(axis=0) + np.int32(1)
        results.append(Selection(np.sort(order), order, gains, tuple(cuts), table, clusters))
        if report is not None:
            report(count)
    return results
