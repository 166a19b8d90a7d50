"""What the host of the GPU backend launches, in which order and on which stream; kernels are stand-ins."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.processes import run_module
from tests.helpers.ptx import ROOT, needs_triton

pytestmark = needs_triton

CHIP = (9, 0)


class Kernel:
    """Notes its launches: name, programs, and the program that it begins with."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def __getitem__(self, grid):
        def launch(*given, **how):
            first = next(x for x in given if isinstance(x, int))
            self.log.append((self.name, grid[0], first))

        return launch


class Core:
    """Notes how many layers are covered."""

    def __init__(self, log):
        self.log = log

    def pack_layers(self, rows):
        self.rows = rows
        return bytes(64 * len(rows)), 1, 1

    def cover_layers_on_host(self, address, count, *others):
        self.log.append(("cover", count))


@pytest.fixture
def log(monkeypatch):
    from reprune.kernels import beside, linkage, select

    found = []
    for module in (linkage, select):
        monkeypatch.setattr(module, "chip_of", lambda device: CHIP)
    for name in ("ward", "line", "rule", "spread"):
        monkeypatch.setattr(linkage, f"{name}_kernel", Kernel(name, found))
    monkeypatch.setattr(select, "label_kernel", Kernel("label", found))
    monkeypatch.setattr(beside.Beside, "follow", lambda self: found.append(("follow",)))
    return found


def layer(O, I, d, keep=None):
    from reprune.kernels.select import Layer

    return Layer([torch.zeros(I, O, d)], keep or O // 2)


def shape(problems, points, d):
    from reprune.kernels.parts import Shape

    return Shape.of(torch.zeros(problems, points, d))


def test_picks_are_made_while_the_next_layers_are_clustered(log):
    """The longest picks first; a layer of two kinds of kernels after both."""
    from reprune.kernels.select import Layer, Selecting

    mixed = Layer([torch.zeros(4, 300, 9), torch.zeros(4, 300, 1)], 10)
    Selecting(Core(log), [layer(64, 3, 9), mixed, layer(500, 7, 1), layer(256, 5, 9), layer(64, 2, 9)])
    assert [entry[0] for entry in log if entry[0] not in ("rule", "follow")] == [
        *("spread", "line", "label", "cover"),  # 500 filters of 1x1 kernels, and 4 channels of `mixed`
        *("ward", "ward", "label", "cover"),  # 256 filters, and the rest of `mixed`
        *("ward", "ward", "label", "cover"),  # 64 filters, two layers
    ]
    assert [entry[1] for entry in log if entry[0] == "label"] == [11, 9, 5]
    assert [entry[2] for entry in log if entry[0] == "label"] == [0, 11, 20]
    assert [entry[1] for entry in log if entry[0] == "cover"] == [1, 2, 2]
    for before, after in pairwise(log):
        assert (after[0] == "cover") == (before[0] == "follow")


def test_every_layer_has_an_index_of_its_own_at_8_bytes(log):
    from reprune.kernels.coverage import Coverage, CoverLayer

    core, shapes = Core(log), [(1, 1), (3, 3), (5, 7), (3, 1), (7, 5)]
    layers = [CoverLayer(0, 0, O, I, O, O, 0) for O, I in shapes]
    Coverage(core, layers, [range(len(layers))], torch.device("cpu"))
    begins = [row[2] for row in core.rows]
    assert all(begin % 8 == 0 for begin in begins)
    for (O, I), (begin, end) in zip(shapes, pairwise(begins), strict=False):
        assert end - begin >= 2 * (4 * (O // 2) * I + O * I)


def test_layers_that_the_kernel_has_no_room_for_are_not_covered_by_it(log):
    from reprune.kernels.coverage import has_room
    from reprune.kernels.select import Selecting

    Selecting(Core(log), [layer(4096, 1, 1), layer(4097, 1, 1)])
    assert [entry for entry in log if entry[0] == "cover"] == [("cover", 1)]
    assert has_room(4096, 349_525)  # three words of 16 bits for each kernel, at 32 bits
    assert not has_room(4096, 349_526)
    assert not has_room(1, 2**28)


def test_the_host_calls_torch_as_often_for_many_layers_as_for_few(log):
    from reprune.kernels.select import Selecting

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.calls += 1
            return func(*args, **(kwargs or {}))

    counts = []
    for number in (2, 40):
        layers = [layer(8, 2, 1) for _ in range(number)]
        with Count() as count:
            started = Selecting(Core(log), layers)
            started.read([part.numpy() for part in started.results])
        counts.append(count.calls)
    assert counts[0] == counts[1]


def test_a_division_is_kept():
    from reprune.kernels.parts import ADDRESS, TABLE, divide

    tables = [torch.zeros(3, 20, 9), torch.zeros(2, 30, 9)]
    shapes = tuple(shape(*table.shape) for table in tables)
    first = divide(shapes, (10, 10), (1.0, 2.0), 1 << 20, CHIP)
    assert divide(shapes, (10, 10), (1.0, 2.0), 1 << 20, CHIP) is first
    assert divide(shapes, (10, 11), (1.0, 2.0), 1 << 20, CHIP) is not first
    for _ in range(2):
        others = [table.clone() for table in tables]
        placed = first.placed(others)
        assert placed[:, ADDRESS].tolist() == [others[k].data_ptr() for k in placed[:, TABLE]]
        assert placed[:, TABLE].tolist() == [1, 0]  # more points first


def test_every_problem_is_in_one_program_and_has_places_of_its_own():
    from reprune.kernels.parts import BEGIN, NUMBER, POINTS, POSITION, TOTAL, bytes_of, divide

    shapes = tuple(shape(*s) for s in [(3, 64, 9), (2, 30, 9), (4, 100, 1), (0, 7, 9), (1, 1, 9)])
    for scratch in (1, bytes_of(64, 9) * 2, 1 << 30):
        division = divide(shapes, None, None, scratch, CHIP)
        parts, programs = division.parts, division.programs
        own = parts[programs[:, 0]]
        numbers = own[:, NUMBER] + programs[:, 1]
        assert sorted(numbers) == list(range(10))
        begins = own[:, BEGIN] + programs[:, 1] * own[:, POINTS]
        order = np.argsort(numbers)
        assert begins[order].tolist() == [0, 64, 128, 192, 222, 252, 352, 452, 552, 652]
        for group in division.groups:
            for chunk in group.chunks:
                here = own[chunk.begin : chunk.end]
                k = programs[chunk.begin : chunk.end, 1]
                n = here[:, POINTS]
                for column, each, room in (
                    (POSITION, -(-n // 32) * 32, division.positions),
                    (TOTAL, n + 2, division.totals),
                ):
                    starts = here[:, column] + k * each
                    assert (starts[1:] == (starts + each)[:-1]).all()
                    assert starts[0] == 0
                    assert (starts + each)[-1] <= room
                assert len(here) == 1 or scratch > 1


def test_what_was_compiled_is_launched_as_it_is(monkeypatch):
    from reprune.kernels import launch

    log = []

    class Compiled:
        def __getitem__(self, grid):
            return lambda *given: log.append((grid, given))

    class Jit:
        arg_names = ("x", "first", "D", "B")

        def __getitem__(self, grid):
            def run(*given, **how):
                log.append((grid, given, how))
                return Compiled()

            return run

    monkeypatch.setattr(launch, "_COMPILED", {})
    kernel, cpu = Jit(), torch.device("cpu")
    launch.launch(kernel, 5, ("a", 1), {"B": 32, "num_warps": 1, "D": 9}, cpu)
    launch.launch(kernel, 6, ("b", 2), {"B": 32, "num_warps": 1, "D": 9}, cpu)
    launch.launch(kernel, 7, ("c", 3), {"B": 64, "num_warps": 1, "D": 9}, cpu)
    assert log == [
        ((5,), ("a", 1), {"B": 32, "num_warps": 1, "D": 9}),
        ((6, 1, 1), ("b", 2, 9, 32)),
        ((7,), ("c", 3), {"B": 64, "num_warps": 1, "D": 9}),
    ]


class Stream:
    cuda_stream = 7

    def __init__(self, name, log):
        self.name, self.log = name, log

    def wait_stream(self, other):
        self.log.append(f"{self.name} waits for {other.name}")


@pytest.mark.parametrize("fails", [False, True])
def test_the_current_stream_waits_for_the_second_before_memory_is_freed(fails, monkeypatch):
    from reprune.kernels.beside import Beside

    log = []
    priorities = []

    def stream(device, priority):
        priorities.append(priority)
        return Stream("second", log)

    monkeypatch.setattr(torch.cuda, "Stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("current", log))
    try:
        with Beside(torch.device("cuda", 0)) as beside:
            assert beside.handle == 7
            beside.follow()
            log.append("launch")
            if fails:
                raise MemoryError
    except MemoryError:
        assert fails
    assert log == ["second waits for current", "launch", "current waits for second"]
    assert priorities == [-1]  # before the blocks of the current stream
    with Beside(torch.device("cpu")) as beside:
        beside.follow()
        assert beside.handle == 0


@pytest.mark.slow
def test_two_copies_there_and_one_back_on_a_cuda_without_a_gpu(tmp_path):
    """Of a selection by the code for GPUs: all tables but those of picks go at once, and those later."""
    from benchmarks.gpu import no_gpu

    folder = tmp_path / "cuda"
    folder.mkdir()
    try:
        environment = no_gpu.build(folder)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    figures = tmp_path / "host.json"
    command = ["benchmarks.gpu.host", "--here", "--network", "resnet18", "--all", "--json", str(figures)]
    run = run_module(*command, variables=environment, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(figures.read_text())
    calls = found["calls"]
    assert calls["copies to the device"] == 2
    assert calls["copies from it"] == calls["waits of the host"] == 1
    assert calls["allocations"] == 0
    assert calls["launches"] < 20
    times = [at for group in found["groups"] for at in group]
    assert 0 < times[0] <= times[-1] < 1
    assert times == sorted(times)
