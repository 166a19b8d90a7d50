"""Estimate the available memory and how many threads fit in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

ROOT = Path("/")
_UNCHECKED = 2**26
"""Bytes that are allocated without a check, which would take longer than the work."""

_NONE = 2**60
"""Version 1 of control groups reports "no limit" as a number above this."""


def threads_within(needs: Sequence[int], what: str, instead: str) -> int:
    """Return how many threads may work at once.

    Args:
        needs: the bytes that each thread holds at a time, the largest first.
        what: the argument and what needs the memory, for the error; `instead` is its advice.

    Raises:
        MemoryError: the memory does not suffice for one.
    """
    if sum(needs) <= _UNCHECKED:
        return len(needs)
    free = available()
    if free is None:
        return len(needs)
    threads = sum(total <= free for total in accumulate(needs))
    if threads == 0:
        raise MemoryError(
            f"{what}: expected {needs[0] / 1e9:.2f} GB of memory; got {free / 1e9:.2f} GB; {instead}"
        )
    return threads


def available() -> int | None:
    """Return the bytes this process can still allocate, or None where the system does not tell.

    It is the smallest of: the machine's free memory, what each control group around the process (a container,
    a batch job) has left, and what the process's own limit leaves.
    """
    return min((*_machine(), *_groups(), *_limit()), default=None)


def _machine() -> Iterator[int]:
    for line in _read(ROOT / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _groups() -> Iterator[int]:
    for line in _read(ROOT / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            top, names = ROOT / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            top = ROOT / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        # in a container the path is often that of the host, and the top is the container's own group
        inner = top / path.lstrip("/")
        for group in (inner, *inner.parents[: len(inner.relative_to(top).parts)]):
            yield from _left(group, *names)


def _left(group: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    most, used = _read(group / limit), _read(group / usage)
    if most.isdecimal() and int(most) < _NONE and used.isdecimal():
        stat = dict(line.split() for line in _read(group / "memory.stat").splitlines())
        yield max(0, int(most) - int(used) + int(stat.get(cache, 0)))  # a cache of files gives way


def _limit() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # Windows
        return
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _read(ROOT / "proc/self/statm").split()
    if most != resource.RLIM_INFINITY and pages:
        yield max(0, most - int(pages[0]) * os.sysconf("SC_PAGE_SIZE"))


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
