"""Measure the latency of several networks, interleaved."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn

from ..timings import KNOWN, off_by

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
    times: list[list[float]] = [[] for _ in models]
    with torch.inference_mode():
        for model in models:
            model.eval()
            for _ in range(WARM_UP):
                model(images)
        for done in range(repeats):
            if done >= FEWEST and sum(map(sum, times)) > SECONDS:
                break
            for model, runs in zip(models, times, strict=True):
                start = time.perf_counter()
                model(images)
                runs.append(time.perf_counter() - start)
            progress(done + 1, repeats)
    return [Latency(median(runs), off_by(runs)) for runs in times]
