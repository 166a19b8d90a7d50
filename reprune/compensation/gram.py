"""Solve a least-squares problem of fewer rows than inputs, by the products of the rows with each other.

With rows U [n, d] and outputs R [n, o] the ridge solution (U'U + s I)^-1 U'R is U' (UU' + s I)^-1 R: the
matrix to factorise has n rows instead of d. Source: Saunders, Gammerman and Vovk, "Ridge regression learning
algorithm in dual variables" (ICML 1998). Errors on rows left out need those products alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .ridge import ALONE, Solution, cholesky_solution

Part = tuple[Tensor, Tensor, Tensor]


class GramMatrix:
    """The problem of rows in folds.

    A fold is a list of parts: inputs [n, g, d], missing outputs [n, g, o] and wanted ones.
    """

    def __init__(self, folds: Sequence[Sequence[Part]], centred: bool) -> None:
        self._centred = centred
        everything = [part for fold in folds for part in fold]
        u, r, y = (torch.cat(parts).transpose(0, 1) for parts in zip(*everything, strict=True))  # [g, n, ..]
        self.untouched = float(r.square().sum())
        self.wanted = float((y - y.mean(1, keepdim=True)).square().sum())
        self.squares = float(y.square().sum())
        self._mean = u.mean(1, keepdim=True) if centred else torch.zeros_like(u[:, :1])
        self._u, self._r = u - self._mean, r
        self._products = self._u @ self._u.mT  # [g, n, n]
        sizes = torch.tensor([sum(len(u) for u, _, _ in fold) for fold in folds])
        fold_of = torch.arange(len(folds)).repeat_interleave(sizes)
        rows = torch.arange(len(fold_of))
        self._splits = [
            (rows[fold_of == fold].to(u.device), rows[(fold_of != fold) | (len(folds) == 1)].to(u.device))
            for fold in range(len(folds))
        ]

    def error(self, ridge: float) -> float:
        """Return the sum of squares that the fits of all other folds leave of each fold."""
        return sum(self._error(left_out, others, ridge) for left_out, others in self._splits)

    def solution(self, ridge: float) -> Solution:
        """Return the fit of all rows."""
        rows = torch.arange(self._r.shape[1], device=self._r.device)
        r = self._r - (mean := self._mean_of(self._r, rows, 1))
        weight = None
        if (dual := self._dual(self._products, r, ridge)) is not None:
            weight = self._u.mT @ dual
        return weight, self._mean[:, 0], mean[:, 0]

    def _error(self, left_out: Tensor, others: Tensor, ridge: float) -> float:
        r = self._r - self._mean_of(self._r, others, 1)
        if ridge == ALONE:
            return float(r[:, left_out].square().sum())
        # the products of rows around the mean of the others
        along = self._mean_of(self._products, others, 2)  # [g, n, 1]
        products = self._products - along - along.mT + self._mean_of(along, others, 1)
        dual = self._dual(products[:, others][:, :, others], r[:, others], ridge)
        if dual is None:
            return math.inf
        return float((r[:, left_out] - products[:, left_out][:, :, others] @ dual).square().sum())

    def _dual(self, products: Tensor, r: Tensor, ridge: float) -> Tensor | None:
        """Return (UU' + s I)^-1 R, with s the ridge in units of the mean variance of an input."""
        size = products.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True) / self._u.shape[-1]
        return cholesky_solution(products, r, ridge, size)

    def _mean_of(self, x: Tensor, rows: Tensor, dim: int) -> Tensor:
        mean = x.index_select(dim, rows).mean(dim, keepdim=True)
        return mean if self._centred else torch.zeros_like(mean)
