"""Hold what a call was given, without the tensors themselves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from ..aliases import Ints
from .state import State


class Given(NamedTuple):
    """A tensor of a call."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    state: State

    def labels(self, dim: int) -> Ints | None:
        """Return the labels along `dim`, or None."""
        found = self.state.dims[dim]
        return found if isinstance(found, np.ndarray) else None
