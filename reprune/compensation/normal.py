"""Solve a least-squares problem of many rows by its normal equations, from sums over the rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .moments import Moments
from .ridge import ALONE, Solution, cholesky_solution

_KEPT = 2**22
"""Elements of a matrix that is kept while ridges are tried; larger ones are made anew."""


class NormalEquations:
    """The problem of rows in folds, of which the sums are known."""

    def __init__(self, folds: Sequence[Moments], centred: bool) -> None:
        self._folds = [fold for fold in folds if fold.rows]
        self._total = sum(self._folds[1:], start=self._folds[0])
        self._centred = centred
        self._splits: dict[int, _Split] = {}
        self.untouched, self.wanted = float(self._total.rr), self._total.wanted
        self.squares = float(self._total.yy)

    def error(self, ridge: float) -> float:
        """Return the sum of squares that the fits of all other folds leave of each fold."""
        return sum(self._split(number).error(ridge) for number in range(len(self._folds)))

    def solution(self, ridge: float) -> Solution:
        """Return the fit of all rows."""
        u, r = self._total.mean(self._centred)
        return _solved(*self._total.around(u, r)[:2], ridge), u, r

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


def _solved(uu: Tensor, ur: Tensor, ridge: float) -> Tensor | None:
    """Return (U'U + s I)^-1 U'R, with s the ridge in units of the mean variance of an input."""
    return cholesky_solution(uu, ur, ridge, uu.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True))
