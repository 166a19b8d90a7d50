"""Judge whether timings are to be trusted, with one measure and the same words everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import numpy as np

KNOWN = 0.05
"""Relative error (95 %) up to which a median is to be trusted."""
UNTRUSTED = "not to be trusted"


Rounds = list[tuple[float, ...]]
"""What each call took, round by round."""


def interleaved(
    calls: Sequence[Callable[[], object]], clock: Callable[[], float], enough: Callable[[Rounds], bool]
) -> Rounds:
    """Run all `calls` one after the other, round by round, until there are `enough` rounds.

    So whatever else the machine does meets all of them alike.
    """
    rounds: Rounds = []
    while not enough(rounds):
        took = []
        for call in calls:
            start = clock()
            call()
            took.append(clock() - start)
        rounds.append(tuple(took))
    return rounds


def error_of_median(low: float, median: float, high: float, runs: int) -> float:
    """Return the relative error of the median of `runs` timings (95 %, if normal), by the quartiles."""
    return 1.96 * 1.253 * (high - low) / 1.349 / runs**0.5 / median if median > 0 else 0.0


def median_error(times: Sequence[float]) -> float:
    """Return :func:`error_of_median` of repeated timings."""
    low, median, high = np.quantile(times, [0.25, 0.5, 0.75]).tolist()
    return error_of_median(low, median, high, len(times))


def busy_note() -> str:
    """Return a warning for all timings that follow if other programs are running, else ""."""
    if not hasattr(os, "getloadavg"):
        return ""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    load = os.getloadavg()[0]
    if load <= cores / 2:
        return ""
    when = f"load {load:.1f} on {cores} cores when this began"
    return f"Timings are {UNTRUSTED}: other programs were running ({when})"
