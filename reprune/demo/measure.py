"""Measure the latency of several networks, interleaved."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn

from ..timings import KNOWN, Rounds, interleaved, median_error

WARM_UP = 5
FEWEST = 5
SECONDS = 20.0
"""Time for the runs, unless the minimum number of runs takes longer."""


@dataclass(frozen=True)
class Latency:
    """Statistics of repeated forward passes."""

    seconds: float  # median
    off: float  # how far that may be off, as a share of it

    @property
    def trusted(self) -> bool:
        return self.off <= KNOWN


def latencies(
    models: Sequence[nn.Module], images: Tensor, *, repeats: int, progress: Callable[[int, int], None]
) -> list[Latency]:
    """Measure the forward pass of each model.

    The models are interleaved run by run, so that other load on the machine affects all of them alike.
    """

    def enough(times: Rounds) -> bool:
        done = len(times)
        if done:
            progress(done, repeats)
        return done == repeats or (done >= FEWEST and sum(map(sum, times)) > SECONDS)

    with torch.inference_mode():
        for model in models:
            model.eval()
            for _ in range(WARM_UP):
                model(images)
        times = interleaved([partial(model, images) for model in models], time.perf_counter, enough)
    return [Latency(median(runs), median_error(runs)) for runs in zip(*times, strict=True)]
