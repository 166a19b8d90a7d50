"""How long a pick of the coverage kernel takes on an H200: a model fitted to picks of an earlier edition.

Run: python -m benchmarks.gpu.picks    (says how far it is off)

A pick is one block's work and mostly waiting. It takes

    cycles = a + b R + c I / 4

R reads of the index that follow each other, in the warp that has most of them (:func:`reads_in_turn`), and I
warp instructions of the block, whose warps share four schedulers. The coefficients are at least 0, fitted by
least squares of relative errors.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

from benchmarks.gpu.cycles import HERTZ
from benchmarks.gpu.simulated import COVER_THREADS


@dataclass(frozen=True)
class Pick:
    """The mean of all picks of a layer, half of whose filters are picked."""

    filters: int
    channels: int
    reads: float
    instructions: float


MEASURED = {
    Pick(512, 512, 8.285, 2151.8): 2.0,
    Pick(2048, 512, 8.009, 3520.4): 2.1,
    Pick(4096, 64, 6.779, 3865.3): 1.86,
    Pick(2048, 2048, 28.965, 6480.8): 5.96,
}
"""Microseconds a pick took on an H200. The first is the kernel's own time, the others what was left of a
whole call less 0.3 ms of the host. The counts are of the edition that was measured (commit da003d0, whose
picks read the place of a cluster, its first member, and all others one by one), for clusters of normal 3x3
kernels."""


def features(pick: Pick) -> npt.NDArray[np.float64]:
    return np.array([1, pick.reads, pick.instructions / 4])


def fit(rows: dict[Pick, float]) -> npt.NDArray[np.float64]:
    """Cycles: the fixed part, for a read, and for an instruction of each scheduler."""
    given = [features(pick) / (1e-6 * us * HERTZ) for pick, us in rows.items()]
    found: npt.NDArray[np.float64] = nnls(np.array(given), np.ones(len(rows)))[0]
    return found


def seconds(pick: Pick, coefficients: npt.NDArray[np.float64]) -> float:
    return float(features(pick) @ coefficients) / HERTZ


def reads_in_turn(labels: npt.NDArray[np.integer], order: npt.NDArray[np.integer]) -> float:
    """Reads that follow each other in a pick, in the mean over `order`, of label tables [O, I].

    A thread reads where its clusters are, for up to four channels at once, then up to eight members of each
    that is new, and then four at a time.
    """
    O, I = labels.shape
    channels = np.arange(I)
    sizes = np.zeros((I, labels.max() + 1), np.int64)
    np.add.at(sizes, (np.broadcast_to(channels, (O, I)), labels), 1)
    covered = np.zeros(sizes.shape, bool)
    together = COVER_THREADS if I <= COVER_THREADS else 4 * COVER_THREADS
    turns = -(-I // together)
    total = 0
    for filter in order:
        own = channels, labels[filter]
        size, new = sizes[own], ~covered[own]
        covered[own] = True
        # [turn, channel that a thread reads beside others, warp, lane]
        shape = turns, together // COVER_THREADS, COVER_THREADS // 32, 32
        first, rest = np.zeros((2, turns * together), np.int64)
        first[:I] = 1 + (size > 1)
        rest[:I] = np.where(new, np.maximum(0, -(-size // 4) - 2), 0)
        waits = first.reshape(shape).max((1, 3)) + rest.reshape(shape).max(3).sum(1)
        total += int(waits.sum(0).max())
    return total / len(order)


def main() -> None:
    every = fit(MEASURED)
    print(
        "cycles of a pick: {:.0f}, of a read {:.0f}, of an instruction of each scheduler {:.2f}".format(
            *every
        )
    )
    for pick, us in MEASURED.items():
        others = {row: time for row, time in MEASURED.items() if row != pick}
        print(
            f"{pick.filters} x {pick.channels}: {us} us, fitted {1e6 * seconds(pick, every):.2f}, "
            f"from the other three {1e6 * seconds(pick, fit(others)):.2f}"
        )


if __name__ == "__main__":
    main()
