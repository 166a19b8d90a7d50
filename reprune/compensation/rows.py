"""Collect the rows of a layer in folds: as they are while they are few, as sums from then on."""

from __future__ import annotations

import torch
from torch import Tensor

from .gram import GramMatrix, Part
from .moments import Moments
from .normal import NormalEquations
from .ridge import LeastSquares


class Rows:
    """Rows of `groups` problems, each of `inputs` and `outputs`."""

    def __init__(self, folds: int, groups: int, inputs: int, outputs: int, device: torch.device) -> None:
        self.count = 0
        self._sizes, self._device = (groups, inputs, outputs), device
        self._few: list[list[Part]] | None = [[] for _ in range(folds)]
        self._sums: list[Moments] = []

    def add(self, fold: int, u: Tensor, r: Tensor, y: Tensor) -> None:
        """Add rows to a fold: inputs [n, g, d], missing and wanted outputs [n, g, o], float64."""
        self.count += len(u)
        part = (u.to(self._device), r.to(self._device), y.to(self._device))
        if self._few is None:
            self._sums[fold].add(*part)
            return
        self._few[fold].append(part)
        if self.count > self._sizes[1]:  # from here on products of inputs are smaller than those of rows
            self._sums = [Moments.zero(*self._sizes, device=self._device) for _ in self._few]
            for sums, parts in zip(self._sums, self._few, strict=True):
                for some in parts:
                    sums.add(*some)
            self._few = None

    def problem(self, centred: bool) -> LeastSquares:
        """Return the problem of all rows, of which there is at least one."""
        if self._few is None:
            return NormalEquations(self._sums, centred)
        return GramMatrix([parts for parts in self._few if parts], centred)
