"""Choose how much the demo does, and on how many threads, from a few timed steps.

On a machine with busy cores, two threads that wait for each other can take many times as long as one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch

from ..aliases import Progress

LIMIT = 300.0
"""Seconds after which the demo ends with an error."""
PLANNED = 0.5
"""Fraction of :data:`LIMIT` in which the steps of both trainings should fit."""
STEPS, ENOUGH = 3, 5.0
"""Number of timed steps, after an untimed one, and the seconds after which no more are timed."""


@dataclass(frozen=True)
class Job:
    """A training, of a size that may be too much for a slow machine."""

    epochs: int
    until: int  # the last epoch with an event
    images: int


FULL = (Job(6, 4, 4000), Job(4, 3, 4000), Job(3, 2, 2000), Job(2, 1, 1000), Job(2, 1, 500))
QUICK = (Job(2, 1, 2000), *FULL[3:])


@dataclass(frozen=True)
class Pace:
    """A number of threads and the seconds of a step with it."""

    threads: int
    seconds: float

    def job(self, jobs: Sequence[Job], batch: int) -> Job:
        """Return the first of the jobs that fits, else the last."""
        for job in jobs:
            if 2 * job.epochs * -(-job.images // batch) * self.seconds <= PLANNED * LIMIT:
                return job
        return jobs[-1]


@contextmanager
def fastest(step: Callable[[], object]) -> Iterator[tuple[Pace, str]]:
    """Time `step` with torch's threads and with one thread; use the faster inside the block.

    It yields the pace and a note on the number of threads, "" where all are used.
    """
    before = torch.get_num_threads()
    try:
        paces = [_pace(step, threads) for threads in sorted({before, 1}, reverse=True)]
        best = min(paces, key=lambda pace: pace.seconds)
        torch.set_num_threads(best.threads)
        words = " and ".join(f"{1e3 * pace.seconds:.0f} ms with {pace.threads}" for pace in paces)
        words = f"On one thread, which is faster here: a step takes {words}."
        yield best, words if best.threads < before else ""
    finally:
        torch.set_num_threads(before)


def _pace(step: Callable[[], object], threads: int) -> Pace:
    torch.set_num_threads(threads)
    step()
    times: list[float] = []
    while not times or (len(times) < STEPS and sum(times) < ENOUGH):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return Pace(threads, median(times))


class Deadline:
    """Raises an error when the time limit is exceeded; it is told of progress."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell
        self._end = time.perf_counter() + LIMIT

    def __call__(self, stage: str, done: int, total: int) -> None:
        if time.perf_counter() > self._end:
            raise TimeoutError(
                f"the demo ends after {LIMIT:.0f} s, at step {done} of {total} of stage {stage!r}: the "
                "machine is slow or busy; run it with less beside it, or with --quick"
            )
        self._tell(stage, done, total)
