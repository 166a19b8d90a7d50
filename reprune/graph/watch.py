"""Report the progress of a trace and stop it when it takes too long."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence, Set
from contextvars import ContextVar
from typing import Any

from torch import Tensor

from ..aliases import Progress


class Watch:
    """Counts the model's tensors that a trace has reached, and keeps its time limit."""

    def __init__(self, report: Progress | None, seconds: float | None, tensors: int, passes: int = 2) -> None:
        self._report, self._seconds = report, seconds
        self._tensors, self._total = tensors, max(1, passes * tensors)
        self._begun = time.monotonic()
        self._passes = 0
        self._reached: set[int] = set()

    def begin_pass(self) -> None:
        """Note that a forward pass begins."""
        self._passes += 1
        self._reached.clear()
        self._tell(0)

    def call(self, func: Any, tensors: Sequence[Tensor], own: Set[int]) -> None:
        """Note that `func` has run on `tensors`; `own` holds the ids of the model's tensors."""
        if self._report is None and self._seconds is None:
            return
        new = ({id(x) for x in tensors} & own) - self._reached
        if new:
            self._reached |= new
            self._tell(len(self._reached))
        if self._seconds is not None and time.monotonic() - self._begun > self._seconds:
            raise TimeoutError(
                f"time_limit: tracing took longer than {self._seconds:g} s; it had come to {func} in pass "
                f"{self._passes}, at {len(self._reached)} of the model's {self._tensors} tensors.  Smaller "
                "example inputs are faster, or allow more time"
            )

    def end(self) -> None:
        """Note that tracing is over."""
        if self._report is not None:
            self._report("trace", self._total, self._total)

    def _tell(self, reached: int) -> None:
        if self._report is not None:
            done = (self._passes - 1) * self._tensors + reached
            self._report("trace", min(done, self._total - 1), self._total)


_current: ContextVar[Watch | None] = ContextVar("watch", default=None)


def current() -> Watch | None:
    """Return the watch of the current trace, or None."""
    return _current.get()


@contextlib.contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Tell `watch` of every call that is traced inside the block."""
    token = _current.set(watch)
    try:
        yield
    finally:
        _current.reset(token)
    watch.end()
