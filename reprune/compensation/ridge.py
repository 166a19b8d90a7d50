"""Choose the ridge of a layer on images that were left out, and solve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

GRID = (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Ridges that are tried, in units of the mean variance of the inputs."""
ALONE = math.inf
"""The ridge at which the weight stays as it is, and only the mean of the outputs is put right."""
_BEGIN = GRID.index(0.1)
_SUMS = 1e-14
"""What sums of squares lose by rounding where a mean is taken out of them, and more."""

Solution = tuple[Tensor | None, Tensor, Tensor]
"""What is added to the weight, [g, d, o] or None for nothing, and the means of inputs and missing outputs."""


class LeastSquares(Protocol):
    """A problem whose rows are in folds."""

    untouched: float
    """Squared error of the layer as it is."""
    wanted: float
    """Sum of squares of the outputs as they should be, around their means."""
    squares: float
    """The same around zero."""

    def error(self, ridge: float) -> float:
        """Return the sum of squares that the fits of all other folds leave of each fold."""

    def solution(self, ridge: float) -> Solution:
        """Return the fit of all rows."""


@dataclass(frozen=True)
class Fit:
    """What is added to a layer: `weight` [g, d, o] and `bias` [g, o], None where that is nothing."""

    weight: Tensor | None
    bias: Tensor | None
    ridge: float | None
    """None if all was left as it is."""
    before: float
    after: float
    """Squared error on images that were left out, as a part of the wanted outputs' variance."""
    alike: bool = False
    """Whether nothing but rounding lacked, or but a constant, which `bias` puts right."""


def fitted(problem: LeastSquares, centred: bool, ridge: float | None, eps: float) -> Fit:
    """Return the fit of all folds with `ridge`, or with the one that does best on folds left out.

    Errors are rounding, by the precision `eps` of the outputs, up to 4 `eps` of their deviation or `eps` of
    their size. A layer that lacks no more is left alone; where no more is left once the mean is put right, as
    of inputs that were constant, the weight is.

    The search goes down from the middle of `GRID` as long as the error does. It needs a Cholesky
    factorisation for each fold and ridge, five or so of them, which takes less than half the time of one
    eigendecomposition. A solution is taken only if it does better than leaving the layer alone.
    """
    problem_error = cache(problem.error)
    scale = max(problem.wanted, _SUMS * problem.squares, 1e-300)
    before, untouched = problem_error(ALONE), problem.untouched
    rounding = max((4 * eps) ** 2 * problem.wanted, eps**2 * problem.squares)
    if untouched <= rounding:
        return Fit(None, None, None, untouched / scale, untouched / scale, alike=True)
    if centred and before <= max(rounding, _SUMS * untouched):
        return Fit(None, problem.solution(ALONE)[2], ALONE, before / scale, before / scale, alike=True)
    best = ridge
    if best is None:
        at = _BEGIN
        for step in (1, -1):
            while 0 <= at + step < len(GRID) and problem_error(GRID[at + step]) < problem_error(GRID[at]):
                at += step
        best = GRID[at]
    after = problem_error(best)
    if ridge is None and min(after, before) >= untouched:
        return Fit(None, None, None, untouched / scale, untouched / scale)
    if ridge is None and after >= before:
        best, after = ALONE, before
    solution, u, r = problem.solution(best)
    if solution is None or not bool(torch.isfinite(solution).all()):
        best, after, solution = ALONE, before, None
    shift = r if solution is None else r - torch.einsum("gd,gdo->go", u, solution)
    return Fit(solution, shift if centred else None, best, before / scale, after / scale)


def cholesky_solution(matrix: Tensor, right: Tensor, ridge: float, size: Tensor) -> Tensor | None:
    """Return (matrix + ridge * size * I)^-1 right, for each group [g, ..]; a `size` [g, 1] of 0 counts as 1.

    It is None for nothing, or if there is no Cholesky factor.
    """
    if ridge == ALONE:
        return None
    matrix = matrix.clone()
    matrix.diagonal(dim1=-2, dim2=-1).add_(ridge * torch.where(size > 0, size, torch.ones_like(size)))
    factor, info = torch.linalg.cholesky_ex(matrix)
    return None if bool((info > 0).any()) else torch.cholesky_solve(right, factor)
