"""Let the mean of a BatchNorm follow its input."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..modules.slicing import Slices
from .calls import Call


class MeanShift:
    """How much the inputs of a norm are off on average, over images and positions.

    The statistics of training stay the base, so what the few images have by chance cancels: both networks
    see the same. The variance stays, as inputs that were fitted have less of it by what is lost.
    """

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._count = 0

    def add(self, wanted: Tensor, given: Tensor) -> None:
        """Add inputs [B, C, ...] of one call as they should be and as they are."""
        dims = [dim for dim in range(given.dim()) if dim != 1]
        off = (given - wanted).sum(dims, dtype=torch.float64)
        self._sum = off if self._sum is None else self._sum + off
        self._count += given.numel() // max(given.shape[1], 1)

    def value(self, name: str, old: Tensor) -> dict[str, Tensor]:
        """Return {name: new running mean} in the place of `old`; nothing where it stays."""
        if self._sum is None or not bool(self._sum.any()) or not bool(torch.isfinite(self._sum).all()):
            return {}
        return {name: (old.double() + self._sum.to(old.device) / self._count).to(old.dtype)}


def kept_input(call: Call, slices: Slices) -> Tensor:
    """Return the channels of the input of a norm of the dense network that the small one has."""
    kept = slices.get(call.name, {}).get(0)
    if kept is None:
        return call.input
    return call.input.index_select(1, torch.from_numpy(np.asarray(kept)).to(call.input.device))
