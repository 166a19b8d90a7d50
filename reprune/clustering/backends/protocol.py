"""What a backend is: the functions that :data:`reprune.clustering.backends.MODULES` names modules of.

They trust their arguments but for what only they can tell: memory, and limits of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..problem import LayerProblem, Selection

Report = Callable[[int], None]
"""`report(done)`: so many layers."""


class Backend(Protocol):
    """The functions of a backend; arrays are numpy, or tensors on the GPU for "triton"."""

    def floats(self, x: object, name: str) -> Any:
        """`x` as float32 (for float16, bfloat16, float32) or float64 (for integers, float64), finite."""

    def integer_table(self, x: object, name: str) -> Any:
        """`x` as integers [O, I], O >= 1; `ValueError` if it is something else."""

    def restore(self, x: object) -> Callable[[Any], Any]:
        """A function that turns results into what the argument `x` was."""

    def link(self, batches: Sequence[Any], names: Sequence[str], method: str) -> list[Any]:
        """Points [B, n, d] of arguments `names` -> dendrograms [B, n-1, 4] of each."""

    def cut(self, trees: npt.NDArray[np.float64], heights: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """Trees [B, n-1, 4] and heights [B], C-contiguous on the host -> labels [B, n]."""

    def cover(
        self, labels: Any, keep: int, seed: int, name: str, norms: npt.NDArray[np.float64] | None
    ) -> tuple[Any, Any]:
        """Labels [O, I], integers from 0 to 2^31 - 1 -> order [keep], gains [keep]."""

    def select(
        self, problems: Sequence[LayerProblem], seed: int, ties: str, labels: bool, report: Report | None
    ) -> list[Selection]:
        """What stays of each problem, none of which keeps all."""
