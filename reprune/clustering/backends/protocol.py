"""Define the interface of a backend, which each module in :data:`reprune.clustering.backends.MODULES` has.

Of their arguments, backends check only what depends on the backend: memory and limits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..problem import LayerProblem, Selection

Report = Callable[[int], None]
"""`report(done)`, called with the number of layers done."""


class Backend(Protocol):
    """The functions of a backend; arrays are numpy, or GPU tensors for "triton"."""

    def floats(self, x: object, name: str) -> Any:
        """Return `x` as finite float32 or float64.

        float16, bfloat16 and float32 become float32; integers and float64 become float64.
        """

    def integer_table(self, x: object, name: str) -> Any:
        """Return `x` as integers [O, I], O >= 1, else raise `ValueError`."""

    def restore(self, x: object) -> Callable[[Any], Any]:
        """Return a function that converts results to the kind of array that `x` was."""

    def link(self, batches: Sequence[Any], names: Sequence[str], method: str) -> list[Any]:
        """Return the dendrograms [B, n-1, 4] of each of the points [B, n, d], arguments `names`."""

    def pairwise(self, batches: Sequence[Any], names: Sequence[str]) -> list[Any]:
        """Return the distances [B, n, n] of each of the points [B, n, d], arguments `names`."""

    def cut(self, trees: npt.NDArray[np.float64], heights: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """Return labels [B, n] of trees [B, n-1, 4] cut at heights [B], C-contiguous on the host."""

    def cover(
        self, labels: Any, keep: int, seed: int, name: str, norms: npt.NDArray[np.float64] | None
    ) -> tuple[Any, Any]:
        """Return order [keep] and gains [keep] for labels [O, I], integers from 0 to 2^31 - 1."""

    def select(
        self, problems: Sequence[LayerProblem], seed: int, ties: str, labels: bool, report: Report | None
    ) -> list[Selection]:
        """Return the selection of each problem; none of them keeps all its filters."""
