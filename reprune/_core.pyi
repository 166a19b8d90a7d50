from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

has_cuda: bool

def isa() -> str: ...
def set_isa(name: str) -> bool: ...
def linkage(points: NDArray[np.floating], method: int, threads: int) -> NDArray[np.float64]: ...
def linkage_ragged(
    points: Sequence[NDArray[np.floating]], method: int, threads: int
) -> list[NDArray[np.float64]]: ...
def linkage_condensed(distances: NDArray[np.float64], n: int, method: int) -> NDArray[np.float64]: ...
def cut(trees: NDArray[np.float64], heights: NDArray[np.float64], threads: int) -> NDArray[np.int32]: ...
def max_coverage(
    labels: NDArray[np.int32],
    clusters: int,
    keep: int,
    seed: int,
    name: str,
    norms: NDArray[np.float64] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
def select_layers(
    problems: Sequence[tuple[str, Sequence[NDArray[np.floating]], int]],
    seed: int,
    ties_by_norm: bool,
    threads: int,
    progress: Callable[[int], None] | None,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], list[float], NDArray[np.int32], NDArray[np.int32]]]: ...
