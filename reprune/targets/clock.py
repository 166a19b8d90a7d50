"""Time a network relative to another on the current device."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ..graph import Guard, preserving
from ..graph.traced import Example
from ..modules.slicing import copy_with
from ..timings import KNOWN, UNTRUSTED, Rounds, error_of_median, interleaved, median_error

WARM_UP = 1
FEWEST, MOST = 5, 50
"""Minimum and maximum number of runs of each network."""
SURE = 0.01
"""Relative error of the median (95 %) at which no more runs are made."""
SECONDS = 15.0
"""Time for the runs, unless the minimum number of runs takes longer."""
PATIENCE = 60.0
"""Time in which the minimum number of runs has to fit."""


@dataclass(frozen=True)
class Ratio:
    """The time of one network divided by another's: median over pairs of runs, and quartiles."""

    middle: float
    low: float
    high: float
    runs: int

    @property
    def trusted(self) -> bool:
        return error_of_median(self.low, self.middle, self.high, self.runs) <= KNOWN

    def __str__(self) -> str:
        doubt = "" if self.trusted else f": {UNTRUSTED}"
        return f"{self.middle:.3f} (quartiles {self.low:.3f} to {self.high:.3f}, {self.runs} runs{doubt})"


def compare(small: nn.Module, full: nn.Module, example: Example) -> Ratio:
    """Measure the time of `small` divided by that of `full`, in evaluation mode.

    Both are interleaved run by run, so that other load on the machine affects both alike, and each run is
    compared with its neighbour. On the CPU with one thread the clock is the thread's CPU time, which stops
    while other programs use the core; otherwise it is the wall clock, after waiting for the device.

    Raises TimeoutError if the minimum number of runs does not fit in the maximum time.
    """
    args, kwargs = example
    now = _clock(full)
    full = copy_with(full, {}, {}).eval()
    fast = torch.backends.mha.get_fastpath_enabled()
    with preserving(small, example) as one, preserving(full, example) as other:
        torch.backends.mha.set_fastpath_enabled(fast)  # as those have it who use the network
        begun = time.perf_counter()
        for network, preserved in ((small.eval(), one), (full, other)):
            for _ in range(WARM_UP):
                with Guard(preserved):
                    network(*args, **kwargs)
        calls = [lambda: small(*args, **kwargs), lambda: full(*args, **kwargs)]
        with torch.inference_mode():
            times = interleaved(calls, now, lambda times: _enough(times, time.perf_counter() - begun))
    low, median, high = np.quantile(_ratios(times), [0.25, 0.5, 0.75]).tolist()
    return Ratio(median, low, high, len(times))


def _ratios(times: Rounds) -> list[float]:
    return [small / full for small, full in times]


def _enough(times: Rounds, seconds: float) -> bool:
    if len(times) < FEWEST:
        if seconds > PATIENCE:
            each = seconds / (WARM_UP + len(times))
            raise TimeoutError(
                f"{FEWEST} runs do not fit in {PATIENCE:g} s: one of the full network and one of a smaller "
                f"take {each:.1f} s"
            )
        return False
    return len(times) == MOST or median_error(_ratios(times)) <= SURE or seconds > SECONDS


def _clock(model: nn.Module) -> Callable[[], float]:
    kind = next(model.parameters()).device.type
    if kind == "cpu":
        return time.thread_time if torch.get_num_threads() == 1 else time.perf_counter

    def when_done() -> float:
        torch.accelerator.synchronize()
        return time.perf_counter()

    return when_done
