from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

has_cuda: bool
most_filters_on_gpu: int
__version__: str

def isa() -> str: ...
def set_isa(name: str) -> bool: ...
def linkage(points: NDArray[np.floating], method: int, threads: int) -> NDArray[np.float64]: ...
def pairwise(points: NDArray[np.floating], threads: int) -> NDArray[np.float64]: ...
def linkage_ragged(
    points: Sequence[NDArray[np.floating]], method: int, threads: int
) -> list[NDArray[np.float64]]: ...
def linkage_condensed(distances: NDArray[np.float64], n: int, method: int) -> NDArray[np.float64]: ...
def linkage_if_unique(points: NDArray[np.floating], method: int) -> NDArray[np.float64] | None: ...
def linkage_condensed_if_unique(
    distances: NDArray[np.float64], n: int, method: int
) -> NDArray[np.float64] | None: ...
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
    with_labels: bool,
    progress: Callable[[int], None] | None,
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], list[float], NDArray[np.int32], NDArray[np.int32]]]: ...

# Memory by address, for tensors of any device; the functions with a stream are there where has_cuda.
def cuda_error() -> str: ...
def pack_layers(
    layers: Sequence[tuple[int, int, int, int, int, int, int, int, int, int]],
) -> tuple[bytes, int, int]: ...
def shared_words_on_gpu(shape: tuple[int, int]) -> tuple[int, int]: ...
def cover_layers(
    layers: int, count: int, shape: tuple[int, int], by_norm: bool, device: int, stream: int
) -> None: ...
def cover_layers_on_host(
    layers: int, count: int, shape: tuple[int, int], by_norm: bool, threads: int, seed: int
) -> None: ...
def add_squares(
    points: int,
    is_double: bool,
    shape: tuple[int, int, int],
    strides: tuple[int, int, int],
    norms: int,
    device: int,
    stream: int,
) -> None: ...
def add_squares_on_host(
    points: int, is_double: bool, shape: tuple[int, int, int], strides: tuple[int, int, int], norms: int
) -> None: ...
