"""Choose the ridge of a layer on images that were left out, and solve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .moments import Moments

GRID = (1e-10, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0)
"""Ridges that are tried, in units of the mean variance of the inputs."""
ALONE = math.inf
"""The ridge at which the weight stays as it is, and only the mean of the outputs is put right."""
_BEGIN = GRID.index(0.1)
_KEPT = 2**22
"""Elements of a matrix that is kept while ridges are tried; larger ones are made anew."""


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


def fitted(folds: Sequence[Moments], centred: bool, ridge: float | None) -> Fit:
    """Return the fit of all folds with `ridge`, or with the one that does best on folds left out.

    The search goes down from the middle of `GRID` as long as the error does. It needs a Cholesky
    factorisation for each fold and ridge, five or so of them, which takes less than half the time of one
    eigendecomposition. A solution is taken only if it does better than leaving the layer alone.
    """
    folds = [fold for fold in folds if fold.rows]
    total = sum(folds[1:], start=folds[0])
    left_out = _LeftOut(folds, total, centred)
    scale = max(total.wanted, 1e-300)
    before = left_out.error(ALONE)
    best = left_out.best() if ridge is None else ridge
    after = left_out.error(best)
    untouched = float(total.rr)
    if ridge is None and min(after, before) >= untouched:
        return Fit(None, None, None, untouched / scale, untouched / scale)
    if ridge is None and after >= before:
        best, after = ALONE, before
    u, r = total.mean(centred)
    solution = _solved(*total.around(u, r)[:2], best)
    if solution is None or not bool(torch.isfinite(solution).all()):
        best, after, solution = ALONE, before, None
    shift = r if solution is None else r - torch.einsum("gd,gdo->go", u, solution)
    return Fit(solution, shift if centred else None, best, before / scale, after / scale)


class _Split(NamedTuple):
    """A fold and all others, around the means of the others."""

    others: tuple[Tensor, Tensor]
    fold: tuple[Tensor, Tensor, Tensor]

    def error(self, ridge: float) -> float:
        """Return the sum of squares that the fit of the others leaves of the fold."""
        uu, ur, rr = self.fold
        solution = _solved(*self.others, ridge)
        if solution is None:
            return float(rr) if ridge == ALONE else math.inf
        return float(rr - 2 * (solution * ur).sum() + (solution * (uu @ solution)).sum())


class _LeftOut:
    """Errors on each fold of the fit of the others, computed when they are asked for."""

    def __init__(self, folds: Sequence[Moments], total: Moments, centred: bool) -> None:
        self._folds, self._total, self._centred = folds, total, centred
        self._known: dict[float, float] = {}
        self._splits: dict[int, _Split] = {}

    def error(self, ridge: float) -> float:
        """Return the sum of squares that is left."""
        if ridge not in self._known:
            self._known[ridge] = sum(self._split(number).error(ridge) for number in range(len(self._folds)))
        return self._known[ridge]

    def best(self) -> float:
        """Return the ridge at which the error is least, near where the search begins."""
        at = _BEGIN
        for step in (1, -1):
            while 0 <= at + step < len(GRID) and self.error(GRID[at + step]) < self.error(GRID[at]):
                at += step
        return GRID[at]

    def _split(self, number: int) -> _Split:
        """Return a fold and the others; small ones are kept."""
        if number in self._splits:
            return self._splits[number]
        fold = self._folds[number]
        others = self._total - fold if len(self._folds) > 1 else self._total
        u, r = others.mean(self._centred)
        split = _Split(others.around(u, r)[:2], fold.around(u, r))
        if split.others[0].numel() <= _KEPT:
            self._splits[number] = split
        return split


def _solved(uu: Tensor, ur: Tensor, ridge: float) -> Tensor | None:
    """Return (uu + ridge * mean diagonal)^-1 ur; None for nothing, or if that has no Cholesky factor."""
    if ridge == ALONE:
        return None
    size = uu.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    uu = uu.clone()
    uu.diagonal(dim1=-2, dim2=-1).add_(ridge * torch.where(size > 0, size, torch.ones_like(size)))
    factor, info = torch.linalg.cholesky_ex(uu)
    return None if bool((info > 0).any()) else torch.cholesky_solve(ur, factor)
