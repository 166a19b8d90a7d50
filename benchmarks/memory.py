"""How much memory a step takes, as the C library counts it (glibc 2.33 or newer).

What malloc counts (`mallinfo2`) is what tensors, arrays and the C++ core asked for, touched or not. It is
looked at thousands of times in a second; what is there for less may be missed. What the system counts of a
process is not used: it tells peaks late, and keeps pages that were given back. Python's own objects of up to
512 bytes, some MB in all, are counted only in a process that is started with :data:`COUNTED`.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Callable

from torch import nn

LOOK = 2e-4
"""Seconds between two looks at the memory."""
COUNTED = {"PYTHONMALLOC": "malloc"}
"""The environment of a process in which all objects of Python are counted."""


class _Mallinfo2(ctypes.Structure):
    """`struct mallinfo2` of malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


def allocated() -> int:
    """Return the bytes that are allocated in this process."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = _Mallinfo2
    info = libc.mallinfo2()
    return int(info.uordblks + info.hblkhd)  # in the heaps of all threads, and in mappings of their own


def peak_of(step: Callable[[], object]) -> int:
    """Return by how many bytes allocated memory rises at most while `step` runs.

    Threads take turns as often as it is looked at, so `step` takes longer: time it elsewhere.
    """
    gc.collect()
    most = before = allocated()
    over = threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(LOOK):
            most = max(most, allocated())

    watcher = threading.Thread(target=look)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(LOOK)
    watcher.start()
    try:
        step()
    finally:
        over.set()
        watcher.join()
        sys.setswitchinterval(interval)
    return most - before


def size_of(model: nn.Module) -> int:
    """Return the bytes of the parameters and buffers of `model`."""
    return sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
