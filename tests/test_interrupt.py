"""A signal is heard in the middle of a call of the core, whatever its size, and nothing is left of the call.

Times are of the processor, so it does not matter what else the machine does.
"""

import os
import signal
import threading
import time

import numpy as np
import pytest

import reprune
from reprune import hierarchy
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers

RNG = np.random.default_rng(0)
AFTER = 0.2
SMALL = RNG.normal(size=(3, 40, 4))


class HeardError(Exception):
    """What the signal's handler raises."""


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "2")


@pytest.fixture
def on_signal():
    """A function that says what to call once so much work is done from then on."""
    before = signal.getsignal(signal.SIGPROF)

    def arrange(handler, after=AFTER):
        signal.signal(signal.SIGPROF, handler)
        signal.setitimer(signal.ITIMER_PROF, after)

    yield arrange
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def stop(*_):
    raise HeardError


def normal(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


def uneven(*shape):
    """Points that only scans can tell apart."""
    return np.abs(normal(*shape)) ** 24


def condensed(n):
    return RNG.random(n * (n - 1) // 2)


def table(filters, channels, clusters):
    return RNG.integers(clusters, size=(filters, channels), dtype=np.int32)


LONG = {  # each takes many times as long as it is given
    "average": (lambda p: reprune.linkage(p, "average"), lambda: normal(12_000, 8)),
    "complete": (lambda p: reprune.linkage(p, "complete"), lambda: normal(9_000, 1000)),
    "single": (lambda p: reprune.linkage(p, "single"), lambda: normal(65_535, 30)),
    "ward, lists of neighbours": (reprune.linkage, lambda: normal(65_535, 9)),
    "ward, scans": (reprune.linkage, lambda: uneven(65_535, 9)),
    "ward, many coordinates": (reprune.linkage, lambda: normal(4_000, 5000)),
    "ward on a line": (reprune.linkage, lambda: normal(4_000_000, 1)),
    "many small": (reprune.linkage, lambda: normal(300_000, 12, 3)),
    "a list": (reprune.linkage, lambda: [normal(n, 20) for n in range(3_000, 3_050)]),
    "condensed": (lambda d: hierarchy.linkage(d, "average"), lambda: condensed(6_000)),
    "select": (lambda w: reprune.select_filters(w, 30_000), lambda: normal(65_535, 2, 9)),
    "select, by norm": (lambda w: reprune.select_filters(w, 9, ties="norm"), lambda: normal(1_000, 2_000, 9)),
    "coverage of few": (lambda t: reprune.max_coverage(t, 600), lambda: table(65_535, 600, 200)),
    "coverage of many": (lambda t: reprune.max_coverage(t, 60_000), lambda: table(65_535, 200, 30_000)),
}


@pytest.mark.parametrize("name", LONG)
def test_heard_within_a_second_whatever_the_size(name, on_signal):
    call, draw = LONG[name]
    data, expected = draw(), reprune.linkage(SMALL)
    start = time.process_time()
    on_signal(stop)
    with pytest.raises(HeardError):
        call(data)
    assert time.process_time() - start - AFTER < 1
    np.testing.assert_array_equal(reprune.linkage(SMALL), expected)


def test_control_c(on_signal):
    on_signal(signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        reprune.linkage(normal(65_535, 9))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the memory of the process there")
def test_nothing_is_left_in_memory(on_signal):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    data = normal(6_000, 30)
    sizes = []
    for _ in range(4):
        on_signal(stop)
        with pytest.raises(HeardError):
            reprune.linkage(data, "average")  # the distances of all points are 288 MB
        sizes.append(resident())
    assert sizes[-1] - sizes[0] < 100e6


def test_a_handler_may_call_the_core_and_let_the_call_go_on(on_signal):
    data, seen = uneven(9_000, 9), []
    weight = data.reshape(9_000, 1, 9)
    undisturbed = (reprune.linkage(data), reprune.select_filters(weight, 4_000).order)
    expected = (reprune.linkage(data[:700]), reprune.select_filters(weight[:700], 300).order)

    def handler(*_):
        seen.append((reprune.linkage(data[:700]), reprune.select_filters(weight[:700], 300).order))

    on_signal(handler, 0.01)
    tree = reprune.linkage(data)
    on_signal(handler, 0.01)
    order = reprune.select_filters(weight, 4_000).order
    for found, right in ((tree, undisturbed[0]), (order, undisturbed[1])):
        np.testing.assert_array_equal(found, right)
    assert len(seen) == 2
    for found in seen:
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_a_call_of_another_thread_finishes(on_signal):
    data = uneven(9_000, 9)
    expected, results = reprune.linkage(data), []
    other = threading.Thread(target=lambda: results.append(reprune.linkage(data)))

    def start_and_wait():
        other.start()
        other.join()

    on_signal(stop, 0.01)  # of work, of which there is none before the other thread starts
    with pytest.raises(HeardError):  # in the main thread, while it waits
        start_and_wait()
    other.join()
    np.testing.assert_array_equal(results[0], expected)


def test_an_error_of_the_progress_stops_the_layers_that_others_work_on():
    weights = [normal(65_535, 1, 9), normal(40, 3, 9)]
    problems = [LayerProblem(str(k), (w.swapaxes(0, 1),), 20) for k, w in enumerate(weights)]

    def progress(done):
        raise HeardError

    start = time.process_time()
    with pytest.raises(HeardError):
        select_layers(problems, progress=progress)
    assert time.process_time() - start < 20
