"""Calls of the core with less memory than they take; run by test_room.py in a process of its own.

`python -m tests.programs.out_of_memory CORE` prints how many calls had the right answer, a MemoryError,
another end. CORE is the file of `reprune._core`, which is loaded alone: a process without torch forks fast.
"""

import importlib.util
import os
import resource
import sys

import numpy as np

spec = importlib.util.spec_from_file_location("_core", sys.argv[1])
core = importlib.util.module_from_spec(spec)
spec.loader.exec_module(core)

rng = np.random.default_rng(0)
points = rng.normal(size=(3, 400, 5))
line = rng.normal(size=(2, 10_000, 1))
weight = rng.normal(size=(4, 1500, 9)).astype(np.float32)
labels = rng.integers(700, size=(1500, 300), dtype=np.int32)
distances = rng.random(400 * 399 // 2)

CALLS = [lambda m=m: core.linkage(points, m, 3) for m in range(4)]
CALLS += [
    lambda: core.linkage(line, 0, 2),
    lambda: core.linkage_ragged([*points, *line], 0, 3),
    lambda: core.linkage_condensed(distances, 400, 3),
    lambda: core.select_layers([("a", [weight], 700), ("b", [line], 9)], 0, True, 2, False, None),
    lambda: core.max_coverage(labels, 700, 1000, 0, "", None),
    lambda: core.max_coverage(labels, 700, 100, 0, "", None),
]
LIMITS = [int(4096 * 1.8**k) for k in range(16)]  # bytes that a call may take, up to 28 MB


def digest(result):
    """Of all numbers in a result."""
    if isinstance(result, (list, tuple)):
        return hash(tuple(map(digest, result)))
    return hash(np.asarray(result).tobytes())


def limited(call, limit):
    """The call's result, or what it raised."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + limit, before[1]))
    try:
        return call()
    except Exception as error:
        return error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def start_threads():
    """All threads of the core have begun: glibc ends a process without memory for the start of another."""
    core.linkage(rng.normal(size=(300, 60, 2)), 0, 3)
    others = [task for task in os.listdir("/proc/self/task") if int(task) != os.getpid()]
    assert len(others) == 2
    while not all(state(task) == "S" for task in others):
        os.sched_yield()


def state(task):
    with open(f"/proc/self/task/{task}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def verdict(call, limit):
    """0: the right answer; 1: a MemoryError that says of what; 2 and more: anything else."""
    start_threads()
    result = limited(call, limit)
    right = digest(call())  # the next call has all the memory it needs, whatever became of this one
    if isinstance(result, Exception):
        told = "points each" in str(result) or "Unable to allocate" in str(result)  # the latter is numpy's
        return 1 if isinstance(result, MemoryError) and told else 2
    return 0 if digest(result) == right else 3


def forked(work, *arguments):
    """What `work` returned in a child, or the signal that ended it, negative."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work(*arguments)
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    ends = [forked(verdict, call, limit) for call in CALLS for limit in LIMITS]
    print(ends.count(0), ends.count(1), len(ends) - ends.count(0) - ends.count(1))
