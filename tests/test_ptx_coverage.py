"""The compiled coverage kernels, run instruction by instruction: results, races, barriers, cost."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

import reprune
from reprune.clustering import reference
from tests.helpers.ptx import (
    benchmarks,
    compiled,
    needs_nvcc,
    needs_simulator,
    needs_triton,
    open_files,
    simulator,
)

pytestmark = [needs_nvcc, needs_simulator, needs_triton, open_files]

KERNELS = {
    "index": "index_kernel",
    "random": "cover_kernelILb0E",
    "norm": "cover_kernelILb1E",
    "squares": "squares_kernel",
}


@cache
def module(arch):
    return simulator()[0].Module(compiled("gpu/coverage.cu", arch))


def name_of(loaded, kernel):
    (name,) = (entry for entry in loaded.entries() if KERNELS[kernel] in entry)
    return name


def cover(loaded, tables, keeps, norms, seed, **how):
    """Runs the kernels on all tables at once, with poisoned scratch and results."""
    kernels = ("index", "random" if norms[0] is None else "norm")
    modules = [(loaded, name_of(loaded, kernel)) for kernel in kernels]
    return benchmarks()[2].cover(simulator()[0], modules, tables, keeps, norms, seed, **how)


def right(tables, keeps, norms, seed, results):
    return all(
        np.array_equal(result, reference.max_coverage(labels, keep, seed, str(k), norm))
        for k, (labels, keep, norm, result) in enumerate(zip(tables, keeps, norms, results, strict=True))
    )


def draw(shapes, ties, seed=0):
    """Tables of the shapes (O, I, clusters), with many ties; keep is O, so gains of 0 come too."""
    rng = np.random.default_rng(seed)
    tables = [np.minimum(rng.geometric(min(1, 2 / c), size=(O, I)) - 1, min(c, O) - 1) for O, I, c in shapes]
    keeps = [len(labels) for labels in tables]
    norms = [rng.choice(NORMS, len(labels)) if ties == "norm" else None for labels in tables]
    return tables, keeps, norms


# the last: a warp whose filters are all picked, beside places of no filter
SHAPES = [(1, 1, 1), (3, 5, 2), (64, 40, 9), (65, 1, 40), (200, 33, 90), (198, 1, 3)]
NORMS = (-1.0, -0.0, 0.0, 1.0, 1 + 2.0**-52)  # of the last two only the low words differ


@pytest.mark.parametrize("ties", ["random", "norm"])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_right_and_without_a_race(arch, ties):
    for seed in range(3):
        problem = draw(SHAPES, ties, seed)
        stats, results = cover(module(arch), *problem, seed)
        for launch in stats:
            launch.check()
        assert right(*problem, seed, results)


@pytest.mark.parametrize("ties", ["random", "norm"])
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_barrier_is_needed(arch, ties):
    problem = draw([(70, 40, 30)], ties)  # 40 channels: some warps index several

    def run(loaded, seed):
        (first, second), results = cover(loaded, *problem, seed, threads=128, blocks=2)
        both = SimpleNamespace(
            racy=first.racy + second.racy,
            lines=[*first.lines, *second.lines],
            per_inst={"wexec": [*first.per_inst["wexec"], *second.per_inst["wexec"]]},
        )
        return both, right(*problem, seed, results)

    text = compiled("gpu/coverage.cu", arch)
    for other in {*KERNELS} - {"index", ties}:
        start = text.index(f".visible .entry {name_of(module(arch), other)}(")
        text = text[:start] + text[text.index("\n}", start) + 2 :]
    results = simulator()[1].mutate(text, run, seeds=(0, 1, 2))
    assert len(results) == 7
    silent = [result for result in results if not result.raced and not result.error]
    assert silent == []


@pytest.mark.parametrize("kind", ["normal", "heavy"])
def test_at_most_a_million_warp_instructions(kind):
    rng = np.random.default_rng(0)
    draw_weight = {"normal": rng.standard_normal, "heavy": lambda size: rng.standard_t(1.5, size=size)}[kind]
    weight = draw_weight((512, 512, 9)).astype(np.float32)
    labels = np.asarray(reprune.select_filters(weight, 256).labels)
    stats, ((order, gains),) = cover(module("sm_90"), [labels], [256], [None], 0, race=False)
    np.testing.assert_array_equal((order, gains), reprune.max_coverage(labels, 256, name="0"))
    instructions = sum(launch.warp_insts for launch in stats)
    assert instructions <= 1_000_000  # half of what the design study's kernel took


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_squared_norms_to_the_last_bit(arch, dtype):
    ptxsim, _ = simulator()
    points = np.random.default_rng(0).normal(size=(100, 5, 9)).astype(dtype)  # [O, I, d]
    memory, loaded = ptxsim.Memory(), module(arch)
    norms = np.zeros(100)
    table = np.array([0, dtype is np.float64, 5, 100, 9, 9, 45, 1], np.int64)
    table[0] = memory.alloc(points, ro=True).addr
    stats = loaded.launch(
        name_of(loaded, "squares"), (2,), (64,), [table.tobytes(), norms], race=True, memory=memory
    )
    stats.check()
    np.testing.assert_array_equal(norms, reference.selection.squared_norms([points.transpose(1, 0, 2)]))
