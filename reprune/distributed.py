"""Work on one network in several torch.distributed processes, which agree or all raise.

An event makes a few collective calls, in which every process reports its results and whether it failed. A
process that fails still takes part, so that no process waits for it and all learn the reason. A process that
was killed or never takes part is noticed by the backend: gloo sees a closed connection at once, and otherwise
the `timeout` given to `torch.distributed.init_process_group` ends the wait.

Work on a sharded model gathers one parameter after another. It stands in a block :func:`together`, in which
the processes :func:`meet` before they gather, and hear there which of them has failed.
"""

from __future__ import annotations

import contextlib
import hashlib
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
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
    names that process and its error. In a block :func:`together`, `work` may gather and meet.
    """
    if _block.get() is not None:
        mine = work()
        meet()
        return gathered(mine)
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
    _hear("step", [reason for _, reason in everyone])
    return [result for results, _ in everyone for result in results]


def agreed(work: Callable[[], T]) -> T:
    """Return what `work` returns here, after it succeeded on every process; raises as :func:`shared`."""
    own: list[T] = []
    shared(lambda: own.append(work()))
    return own[0]


@contextlib.contextmanager
def together(what: str, so: str = "nothing was changed on this one") -> Iterator[None]:
    """Let all processes do what is in the block: if it raises on one of them, it raises on all.

    There it is the error itself, elsewhere a `RuntimeError` that begins with `what` and says what
    follows (`so`), at the next :func:`meet` or at the end of the block. A block inside another belongs to it.
    """
    if _block.get() is not None:
        yield
        return
    block = _Block(what, so)
    token = _block.set(block)
    try:
        yield
        meet()
    except Exception as error:
        block.tell(error)
        raise
    finally:
        _block.reset(token)


@contextlib.contextmanager
def undone(undo: Callable[[], None]) -> Iterator[None]:
    """Call `undo` on all processes if what is in the block raises on one of them; it may gather and meet.

    The block stands in another, :func:`together`. What was under way when it failed is freed before. Raises
    `RuntimeError` if `undo` fails, as it does where a process has ended.
    """
    block = _block.get()
    assert block is not None
    meet()  # who fails before this undoes nothing, so neither do others
    try:
        yield
        meet()
    except Exception as error:
        block.tell(error)
        traceback.clear_frames(error.__traceback__)
        token = _block.set(None)
        try:
            with together(block.what, "this one cannot go back"):
                undo()
        except Exception as another:
            raise RuntimeError(
                f"{block.what}: it failed, and then could not go back ({type(another).__name__}: {another}): "
                "model and optimizer have lost values; continue from a checkpoint"
            ) from error
        finally:
            _block.reset(token)
        raise


def meet() -> None:
    """Wait for all processes in a block :func:`together`, and raise if one of them has failed.

    It comes before every collective call there. Outside of a block it does nothing.
    """
    block = _block.get()
    if block is None:
        return
    block.over = True
    _hear(block.what, gathered(None), block.so)
    block.over = False


class _Block:
    """A block :func:`together`; it is `over` once another process is known to have failed."""

    def __init__(self, what: str, so: str) -> None:
        self.what, self.so, self.over = what, so, False

    def tell(self, error: Exception) -> None:
        """Report the `error` of this process to the others, unless they know that one has failed."""
        if not self.over:
            self.over = True
            with contextlib.suppress(RuntimeError):  # another one has ended; this error says more
                gathered(f"{type(error).__name__}: {error}")


_block: ContextVar[_Block | None] = ContextVar("together", default=None)


def _hear(what: str, reasons: Sequence[str | None], so: str = "nothing was changed on this one") -> None:
    """Raise `RuntimeError` with the first of the `reasons` for which processes have failed."""
    for rank, reason in enumerate(reasons):
        if reason is not None:
            raise RuntimeError(f"{what}: process {rank} failed, so {so}; its error was {reason}")


def check_alike(everyone: Sequence[Mapping[str, str]], what: str = "step") -> None:
    """Raise `ValueError` with the first thing in which a process differs from the first one."""
    first = everyone[0]
    for rank, other in enumerate(everyone):
        for name in (*first, *other):
            if first.get(name) != other.get(name):
                raise ValueError(
                    f"{what}: the processes are out of step, so they are not training one network: {name} is "
                    f"{first.get(name)} on process 0 and {other.get(name)} on process {rank}.  Give all the "
                    "same arguments, weights and files, wrap the model in DistributedDataParallel or shard "
                    f"it, and call {what}() equally often; nothing was changed"
                )


def digest(tensor: Tensor) -> str:
    """Return a short text that identifies the values of `tensor`."""
    import torch

    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.blake2b(data.tobytes(), digest_size=6).hexdigest()
