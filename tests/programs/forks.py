"""Forks while other threads are in the core; run by test_fork.py in a process of its own.

`python -m tests.programs.forks CORE WHAT` prints how many children there were and how many came to a bad
end. CORE is the file of `reprune._core`, which is loaded alone: a process without torch forks in a fraction
of the time.
"""

import importlib.util
import os
import signal
import sys
import threading

import numpy as np

SECONDS = 30  # after which a child that hangs is killed; under a sanitizer ten at once take seconds


def load(path):
    spec = importlib.util.spec_from_file_location("_core", path)
    core = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(core)
    return core


core = load(sys.argv[1])
WARD = 0
problems = np.random.default_rng(0).normal(size=(2, 3, 2))


def select(problems, progress=None):
    """Clusters of tables [1, O, d], on two threads."""
    return core.select_layers(
        [(str(k), [p[None]], 2) for k, p in enumerate(problems)], 0, False, 2, False, progress
    )


def child(work):
    """The process id of a child that does `work` and ends with 0 if it is true."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.alarm(SECONDS)
        status = 0 if work() else 1
    finally:
        os._exit(status)


def bad(children):
    return sum(os.waitpid(pid, 0)[1] != 0 for pid in children)


def while_threads_cluster(children=200, at_once=10):
    expected, stop = core.linkage(problems, WARD, 2), threading.Event()

    def busy():
        while not stop.is_set():
            core.linkage(problems, WARD, 2)

    def work():
        return np.array_equal(core.linkage(problems, WARD, 2), expected)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    ended = []
    while len(ended) < children // at_once and not any(ended):
        ended.append(bad([child(work) for _ in range(at_once)]))
    stop.set()
    print(at_once * len(ended), sum(ended))


def in_progress():
    """The child of a fork in `progress` ends with an error where it goes on with its parent's call."""
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(400, 9)) for _ in range(60)]
    parent, children = os.getpid(), []

    def progress(done):
        # In the last report nothing is left to go on with: a child of it returns what was chosen.
        if os.getpid() == parent and len(children) < 5 and done < len(layers):
            pid = os.fork()
            children.append(pid)
            if pid == 0:
                signal.alarm(SECONDS)

    try:
        while len(children) < 5:  # on a busy machine the other thread may do nearly all of a call
            select(layers, progress)
    except RuntimeError as error:
        os._exit(0 if os.getpid() != parent and "forked" in str(error) else 1)
    finally:
        if os.getpid() != parent:
            os._exit(1)
    print(len(children), bad(children))


def with_fresh_pools(generations=20):
    """Children of children, each with a pool of threads of its own."""
    expected = core.linkage(problems, WARD, 2)

    def work(left=generations):
        same = np.array_equal(core.linkage(problems, WARD, 2), expected)
        return same and (left == 0 or not bad([child(lambda: work(left - 1))]))

    print(1, bad([child(work)]))


if __name__ == "__main__":
    {f.__name__: f for f in (while_threads_cluster, in_progress, with_fresh_pools)}[sys.argv[2]]()
