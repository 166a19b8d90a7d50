"""Put off the collection of cyclic garbage while a model is traced."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collecting_later() -> Iterator[None]:
    """Let Python collect no cycles inside the block, unless `gc.collect` is called.

    A trace makes some ten thousand objects that live to its end and hardly a cycle. To look through them
    again and again takes a twentieth of its time, and to look through all objects of the process, which may
    fall into any trace, half as long as the trace of a large network.

    Collection is for the process, not for a thread: where several trace at once it may be on again before
    the last has ended, and when all have ended it is as it was.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
