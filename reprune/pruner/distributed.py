"""Share the layers of one network among torch.distributed processes, which agree or all raise.

An event makes a few collective calls, in which every process reports its results and whether it failed. A
process that fails still takes part, so that no process waits for it and all learn the reason. A process that
was killed or never takes part is noticed by the backend: gloo sees a closed connection at once, and otherwise
the `timeout` given to `torch.distributed.init_process_group` ends the wait.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def rank_and_size() -> tuple[int, int]:
    """Return this process's rank and the world size; (0, 1) without a process group."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_initialized():
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def owners(costs: Sequence[float], size: int) -> list[int]:
    """Assign each piece of work to one of `size` processes: largest first, to the least loaded."""
    load = np.zeros(size)
    owner = [0] * len(costs)
    for k in sorted(range(len(costs)), key=lambda k: (-costs[k], k)):
        owner[k] = int(load.argmin())
        load[owner[k]] += costs[k]
    return owner


def gathered(mine: Any) -> list[Any]:
    """Return what every process passed, in the order of their ranks; [mine] if there is one.

    Raises `RuntimeError` if the backend finds that another process will not take part.
    """
    import torch.distributed as dist

    size = rank_and_size()[1]
    if size == 1:
        return [mine]
    everyone: list[Any] = [None] * size
    try:
        dist.all_gather_object(everyone, mine)
    except RuntimeError as error:
        raise RuntimeError(
            "step: expected all processes at the event, but one has ended, has no pruner or waits elsewhere; "
            f"nothing was changed here ({error})"
        ) from error
    return everyone


def shared(work: Callable[[], T]) -> list[T]:
    """Return what `work` returned on every process, in the order of their ranks.

    If it raises on one process, it raises on all: there the error itself, elsewhere a `RuntimeError` that
    names that process and its error.
    """
    done: list[T] = []
    error: Exception | None = None
    try:
        done.append(work())
    except Exception as raised:  # whatever it is, the others must hear of it
        error = raised
    said = None if error is None else f"{type(error).__name__}: {error}"
    try:
        everyone = gathered((done, said))
    except RuntimeError:
        if error is None:
            raise
    if error is not None:
        raise error
    for rank, (_, reason) in enumerate(everyone):
        if reason is not None:
            raise RuntimeError(
                f"step: process {rank} failed, so nothing was changed on this one; its error was {reason}"
            )
    return [result for results, _ in everyone for result in results]


def agreed(work: Callable[[], T]) -> T:
    """Return what `work` returns here, after it succeeded on every process; raises as :func:`shared`."""
    own: list[T] = []
    shared(lambda: own.append(work()))
    return own[0]


def check_alike(everyone: Sequence[Mapping[str, str]]) -> None:
    """Raise `ValueError` with the first thing in which a process differs from the first one."""
    first = everyone[0]
    for rank, other in enumerate(everyone):
        for name in (*first, *other):
            if first.get(name) != other.get(name):
                raise ValueError(
                    f"step: the processes are out of step, so they are not training one network: {name} is "
                    f"{first.get(name)} on process 0 and {other.get(name)} on process {rank}.  Give all the "
                    "same arguments, weights and files, wrap the model in DistributedDataParallel, and call "
                    "step() equally often; nothing was changed"
                )


def digest(tensor: Tensor) -> str:
    """Return a short text that identifies the values of `tensor`."""
    import torch

    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(data.tobytes(), digest_size=6).hexdigest()
