"""Latency of several networks side by side, on an otherwise unknown machine."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from torch import Tensor, nn

WARM_UP = 5


def latencies(
    models: Sequence[nn.Module], images: Tensor, *, repeats: int, progress: Callable[[int, int], None]
) -> list[float]:
    """Median seconds of one forward pass of each model.

    The models take turns run by run, so that whatever else the machine does meets all of them alike.
    """
    times: list[list[float]] = [[] for _ in models]
    with torch.inference_mode():
        for model in models:
            model.eval()
            for _ in range(WARM_UP):
                model(images)
        for done in range(repeats):
            for model, runs in zip(models, times, strict=True):
                start = time.perf_counter()
                model(images)
                runs.append(time.perf_counter() - start)
            progress(done + 1, repeats)
    return [median(runs) for runs in times]
