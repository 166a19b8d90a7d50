"""What takes much memory says so before it takes it, works with fewer threads, or says what to do."""

import sys
from pathlib import Path

import numpy as np
import pytest

import reprune
from reprune import _core, hierarchy
from reprune.clustering import room
from reprune.clustering.backends import cpp
from tests.helpers.processes import run_module

GB = 10**9
MANY = 200_000  # points whose distances take 320 GB


@pytest.fixture
def free(monkeypatch):
    """A function that says how many bytes there are from then on."""

    def say(count):
        monkeypatch.setattr(room, "available", lambda: count)

    say(30 * GB)
    return say


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A function that writes files of the system, by their path, below another root."""
    monkeypatch.setattr(room, "ROOT", tmp_path)

    def write(**texts):
        for name, text in texts.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    write(proc__meminfo="MemTotal: 64 kB\nMemAvailable:   5000000 kB\n")
    return write


@pytest.mark.parametrize("method", ["complete", "average"])
def test_linkage_says_what_it_needs_and_what_there_is(method, free):
    points = np.zeros((MANY, 1), np.float32)
    expected = (
        rf"points: method '{method}' .* 200,000 points: expected 320\.\d\d GB .* got 30\.00 GB; fewer points"
    )
    for given in (points, points[None], [np.zeros((2, 1)), points], [points, points]):
        with pytest.raises(MemoryError, match=expected):
            reprune.linkage(given, method)
    with pytest.raises(MemoryError, match="y: method"):
        hierarchy.linkage(np.arange(MANY)[:, None] ** 0.5, method)


def test_condensed_distances(free):
    free(GB // 4)
    distances = np.random.default_rng(0).random(6_000 * 5_999 // 2)
    expected = r"y: .* 6,000 points .*: expected 0\.29 GB .* got 0\.25 GB; fewer"
    with pytest.raises(MemoryError, match=expected):
        hierarchy.linkage(distances, "ward")


def test_the_least_of_memory_is_taken_by_ward_and_single(free):
    free(0)
    points = np.random.default_rng(0).normal(size=(3000, 9))
    for method in ("ward", "single"):
        assert reprune.linkage(points, method).shape == (2999, 4)


@pytest.fixture
def threads(monkeypatch):
    """Numbers of threads that the core was called with; nothing is computed."""
    seen = []

    class Core:
        @staticmethod
        def linkage(points, method, threads):
            seen.append(threads)
            return []

        linkage_ragged = linkage

    monkeypatch.setattr(cpp, "core", Core)
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "8")
    return seen


def link_ragged(problems, method):
    cpp.link([points[None] for points in problems], [f"points[{k}]" for k in range(len(problems))], method)


@pytest.mark.parametrize("gigabytes, expected", [(30, 8), (4, 4), (1.7, 2), (0.81, 1)])
def test_as_many_threads_as_there_is_memory_for(gigabytes, expected, free, threads):
    free(int(gigabytes * GB))
    batch = np.zeros((9, 10_000, 2), np.float32)  # 0.8 GB each
    cpp.link([batch], ["points"], "average")
    link_ragged([*batch, batch[0, :5]], "complete")
    assert threads == [expected, expected]


def test_memory_for_a_list_is_that_of_its_largest_problems(free, threads):
    free(GB)
    sizes = [100, 10_000, 3_000, 100, 2_000, 9_000]  # 0.8 + 0.65 GB for the largest two
    link_ragged([np.zeros((n, 1)) for n in sizes], "average")
    assert threads == [1]
    free(int(1.6 * GB))
    link_ragged([np.zeros((n, 1)) for n in sizes], "average")
    assert threads == [1, 6]


def test_small_problems_do_not_query_memory(monkeypatch):
    monkeypatch.delattr(room, "available")
    assert len(reprune.linkage(np.zeros((2, 500, 3)), "average")) == 2


def test_the_machine(machine):
    assert room.available() == 5_000_000 * 1024


def test_a_system_that_does_not_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "ROOT", tmp_path)
    assert room.available() is None
    assert room.threads_within([10**15], "points", "") == 1


@pytest.mark.parametrize("where", ["jobs__mine__", "jobs__", ""])
def test_control_groups_of_version_2(where, machine):
    machine(proc__self__cgroup="0::/jobs/mine\n", sys__fs__cgroup__jobs__mine__memory__x="")
    folder = f"sys__fs__cgroup__{where}"
    machine(**{f"{folder}memory.max": "3000000\n", f"{folder}memory.current": "1000000\n"})
    assert room.available() == 2_000_000
    machine(**{f"{folder}memory.stat": "anon 5\ninactive_file 400000\nslab 7"})
    assert room.available() == 2_400_000
    machine(**{f"{folder}memory.current": "9000000\n"})
    assert room.available() == 0
    machine(**{f"{folder}memory.max": "max\n"})
    assert room.available() == 5_000_000 * 1024


def test_control_groups_of_version_1(machine):
    machine(proc__self__cgroup="5:cpu:/a\n4:hugetlb,memory:/box\n")
    folder = "sys__fs__cgroup__memory__box__memory"
    machine(**{f"{folder}.limit_in_bytes": "3000000", f"{folder}.usage_in_bytes": "500000"})
    assert room.available() == 2_500_000
    machine(**{f"{folder}.limit_in_bytes": "9223372036854771712"})  # none
    assert room.available() == 5_000_000 * 1024


@pytest.fixture
def address_space():
    """A function that limits the address space of this process."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_AS)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="the system tells there what the process has")
def test_a_limit_of_the_process(machine, address_space):
    machine(proc__self__statm=Path("/proc/self/statm").read_text())
    used = int(Path("/proc/self/statm").read_text().split()[0]) * 4096
    address_space(used + 2**30)
    assert room.available() == pytest.approx(2**30, abs=2**26)
    with pytest.raises(MemoryError, match="expected 39"):
        reprune.linkage(np.zeros((70_000, 1)), "complete")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the process are kept there")
def test_no_memory_is_an_error_of_one_call_and_no_crash():
    done = run_module("tests.programs.out_of_memory", _core.__file__)
    answers, errors, faults = map(int, done.stdout.split())
    assert faults == 0, done.stderr
    assert answers > 50
    assert errors > 50
