"""Time implementations by two clocks, interleaved, so that other load meets all of them alike."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from ..timings import median_error

LEAST_ROUNDS = 3
LARGE_ARRAY = 24_000_000  # bytes; glibc raises its thresholds up to 32 MiB


def settle_memory() -> None:
    """Allocate and free a large array, after which the C library keeps freed memory.

    Otherwise every call that needs a megabyte pays for page faults. After the import of torch these take a
    third of the time of scipy's linkage of 512 points, and they are no property of clustering.
    """
    np.ones(LARGE_ARRAY // 8)


@dataclass(frozen=True)
class Seconds:
    """Wall-clock and processor time of one call."""

    cpu: float
    """Processor time of all threads of this process."""
    wall: float

    def __mul__(self, factor: float) -> "Seconds":
        return Seconds(self.cpu * factor, self.wall * factor)

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.cpu + other.cpu, self.wall + other.wall)


NONE = Seconds(0.0, 0.0)
Turn = Callable[[], Mapping[str, Seconds]]
"""Runs something once and returns the time of a full answer, by implementation."""


def clocked(call: Callable[[], object]) -> Seconds:
    """Time one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Seconds(time.process_time() - cpu, time.perf_counter() - wall)


@dataclass(frozen=True)
class Timing:
    """Medians over the rounds."""

    cpu: float
    wall: float
    runs: int
    off: Seconds = field(default=NONE, compare=False)
    """Relative error that either median may have."""


def in_turns(turns: list[Turn], seconds: float) -> dict[str, Timing]:
    """Run all `turns` interleaved, round by round, until `seconds` are over.

    At least three rounds are run, however long they take.
    """
    end = time.perf_counter() + seconds
    found: dict[str, list[Seconds]] = {}
    rounds, longest = 0, 0.0
    while rounds < LEAST_ROUNDS or time.perf_counter() + longest < end:
        start = time.perf_counter()
        for turn in turns:
            for who, took in turn().items():
                found.setdefault(who, []).append(took)
        longest = max(longest, time.perf_counter() - start)
        rounds += 1
    return {
        who: Timing(
            cpu=median(s.cpu for s in took),
            wall=median(s.wall for s in took),
            runs=len(took),
            off=Seconds(median_error([s.cpu for s in took]), median_error([s.wall for s in took])),
        )
        for who, took in found.items()
    }


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run the C++ core on `count` threads inside the block, by the variable that users set."""
    before = os.environ.get("REPRUNE_NUM_THREADS")
    os.environ["REPRUNE_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ["REPRUNE_NUM_THREADS"]
        else:
            os.environ["REPRUNE_NUM_THREADS"] = before
