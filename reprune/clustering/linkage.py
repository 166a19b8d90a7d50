"""Compute the hierarchical clustering of one problem, a batch or a ragged list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from ..arguments import one_of
from . import reference
from .arrays import MOST_IN_MATRIX, MOST_ON_GPU
from .batches import in_batches

if TYPE_CHECKING:
    import torch


@overload
def linkage(
    points: npt.NDArray[Any], method: str = "ward", *, backend: str = "auto"
) -> npt.NDArray[np.float64]: ...
@overload
def linkage(points: torch.Tensor, method: str = "ward", *, backend: str = "auto") -> torch.Tensor: ...
@overload
def linkage(
    points: Sequence[npt.NDArray[Any]], method: str = "ward", *, backend: str = "auto"
) -> list[npt.NDArray[np.float64]]: ...
@overload
def linkage(
    points: Sequence[torch.Tensor], method: str = "ward", *, backend: str = "auto"
) -> list[torch.Tensor]: ...
def linkage(points: Any, method: str = "ward", *, backend: str = "auto") -> Any:
    """Cluster points agglomeratively by Euclidean distance.

    Clusters A and B merge in the order of their height, with `d(.,.)` the Euclidean distance:

    ==============  ==========================================================================
    `"ward"` `sqrt(2 |A||B| / (|A|+|B|)) * d(mean of A, mean of B)`
    `"single"`    smallest `d(a, b)` for a in A, b in B
    `"complete"`  largest `d(a, b)`
    `"average"`   mean `d(a, b)`
    ==============  ==========================================================================

    Args:
        points: `[n, d]` one problem, `[B, n, d]` a batch, or a list of `[n_b, d]`; numpy or torch, any
            real dtype (float16, bfloat16 and float32 are read as they are, integers as float64), any strides.
        method: the linkage.
        backend: `"auto"`, `"reference"`, `"cpp"` or `"triton"`.

    Returns:
        `Z [n-1, 4]`, `[B, n-1, 4]` or a list of `[n_b - 1, 4]`: float64 in scipy's form, row k = (id,
        id, height, size) of the cluster with id `n + k`, rows sorted by height and ids within a row. numpy
        in, numpy out; torch in, torch out on the same device.

    Among equally high merges the one with the smallest numbers comes first; the number of a cluster is the
    largest number of its points: :mod:`reprune.clustering.reference.linkage` states the rule and the
    formulas. All backends give the same Z to the last bit, whatever the threads, the processor and the calls
    before.

    Any finite numbers are accepted, and the smallest and the largest of float64 can be mixed. Heights are
    right to rounding; above the largest float64 they are infinite, and near the smallest, 5e-324, they are
    multiples of it. Digits below 2^-950 are lost if there are numbers above 2^900.

    Raises:
        ValueError, TypeError: wrong shape, no points, NaN or infinity, unknown method or backend; more
            than 65,535 points, or 16,384 by another method than ward, with the backend "triton"; more than
            2^30 points, or 2^24 of more than one coordinate by "ward".
        MemoryError: "complete" and "average" keep the distances of all points of a problem, `8 n^2` bytes,
            and there is less; where that suffices, fewer problems are worked on at a time.
        BackendUnavailable: the backend cannot run here.

    Examples:
        >>> import numpy as np, reprune
        >>> points = np.array([[0.0, 0.0], [0.0, 1.0], [5.0, 0.0], [5.0, 3.0]])
        >>> reprune.linkage(points)
        array([[0.        , 1.        , 1.        , 2.        ],
               [2.        , 3.        , 3.        , 2.        ],
               [4.        , 5.        , 7.21110255, 4.        ]])

        Many small problems at once:

        >>> reprune.linkage(np.random.default_rng(0).normal(size=(1000, 32, 9))).shape
        (1000, 31, 4)
    """
    one_of(method, "method", reference.METHODS)
    return in_batches(
        points,
        backend,
        lambda functions, batches, names: functions.link(batches, names, method),
        most_on_gpu=MOST_ON_GPU if method == "ward" else MOST_IN_MATRIX,
        ward=method == "ward",
    )
