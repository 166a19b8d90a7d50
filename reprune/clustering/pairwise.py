"""Compute the Euclidean distances between all points of one problem, a batch or a ragged list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from .arrays import MOST_ON_GPU
from .batches import in_batches

if TYPE_CHECKING:
    import torch


@overload
def pairwise(points: npt.NDArray[Any], *, backend: str = "auto") -> npt.NDArray[np.float64]: ...
@overload
def pairwise(points: torch.Tensor, *, backend: str = "auto") -> torch.Tensor: ...
@overload
def pairwise(
    points: Sequence[npt.NDArray[Any]], *, backend: str = "auto"
) -> list[npt.NDArray[np.float64]]: ...
@overload
def pairwise(points: Sequence[torch.Tensor], *, backend: str = "auto") -> list[torch.Tensor]: ...
def pairwise(points: Any, *, backend: str = "auto") -> Any:
    """Compute the Euclidean distances between all points.

    They are those that :func:`linkage` clusters by: every pair is scaled by a power of two of its own where
    squares would overflow or vanish, and the squares of the coordinates are added in their order. Nothing is
    computed as `|x|^2 + |y|^2 - 2 x.y`, which loses the digits of points that are close together. All
    backends give the same numbers to the last bit.

    Args:
        points: `[n, d]` one problem, `[B, n, d]` a batch, or a list of `[n_b, d]`; numpy or torch, any
            real dtype (float16, bfloat16 and float32 are read as they are, integers as float64), any strides.
        backend: `"auto"`, `"reference"`, `"cpp"` or `"triton"`.

    Returns:
        float64 `[n, n]`, `[B, n, n]` or a list of `[n_b, n_b]`, symmetric with zeros on the diagonal; numpy
        in, numpy out; torch in, torch out on the same device. Distances above the largest float64 are
        infinite.

    Raises:
        ValueError, TypeError: wrong shape, no points, NaN or infinity, unknown backend; more than 65,535
            points with the backend "triton".
        MemoryError: the distances, `8 n^2` bytes of each problem, do not fit into memory.
        BackendUnavailable: the backend cannot run here.

    Examples:
        >>> import numpy as np, reprune
        >>> reprune.pairwise(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]]))
        array([[0., 5., 4.],
               [5., 0., 3.],
               [4., 3., 0.]])
        >>> reprune.pairwise(np.zeros((1000, 32, 9))).shape
        (1000, 32, 32)
    """
    return in_batches(
        points, backend, lambda functions, batches, names: functions.pairwise(batches, names), MOST_ON_GPU
    )
