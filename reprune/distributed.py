"""Sharing the layers among the processes of torch.distributed, and telling each other what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def rank_and_size() -> tuple[int, int]:
    """This process and how many there are; (0, 1) without an initialised process group."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def owners(costs: Sequence[float], size: int) -> list[int]:
    """Which of `size` processes does each piece of work: the dearest first, each to the one with least so
    far."""
    load = np.zeros(size)
    owner = [0] * len(costs)
    for k in sorted(range(len(costs)), key=lambda k: (-costs[k], k)):
        owner[k] = int(load.argmin())
        load[owner[k]] += costs[k]
    return owner


def gathered(mine: Any) -> list[Any]:
    """What every process passed here, in the order of their ranks; [mine] if there is one."""
    import torch.distributed as dist

    size = rank_and_size()[1]
    if size == 1:
        return [mine]
    everyone: list[Any] = [None] * size
    dist.all_gather_object(everyone, mine)
    return everyone
