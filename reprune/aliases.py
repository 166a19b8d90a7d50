"""Define the type aliases that many modules use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array: TypeAlias = "npt.NDArray[Any] | torch.Tensor"
Floats: TypeAlias = npt.NDArray[np.floating[Any]]
"""float32 or float64."""
Ints: TypeAlias = npt.NDArray[np.signedinteger[Any]]
Progress: TypeAlias = Callable[[str, int, int], None]
"""`progress(stage, done, total)`, called as the work advances."""
Counts: TypeAlias = dict[str, int]
"""{group of channels: number of atoms to keep}."""
