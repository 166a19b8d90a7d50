"""On a GPU: every size and kind of data, repeats, and that nothing waits before the end. `pytest -m gpu`.

Under Triton's interpreter, where it runs too, problems are small; in a simulator they have up to 200 points
(tests/tools/simulated_gpu.py).
"""

import os
import warnings

import numpy as np
import pytest
import torch

import reprune
from reprune.bench import device
from reprune.clustering import backends as backend
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers
from tests.helpers import nine_kinds
from tests.helpers.networks import images, small_resnet

ON_CPU = backend.interpreted()
RUN_BY = os.environ.get("REPRUNE_GPU_TESTS", "interpreter" if ON_CPU else "gpu")
SMALL = RUN_BY == "interpreter"
WHERE = "cpu" if ON_CPU else "cuda"
SIZES = (1, 2, 3, 17, 64, 65, 200, 512, 2048)
N = {"interpreter": (1, 2, 3, 9), "simulated": SIZES[:7], "gpu": SIZES}[RUN_BY]
REPEATS = 2 if ON_CPU else 20

pytestmark = pytest.mark.gpu
if reason := backend.unavailable("triton"):
    pytest.skip(f"no GPU backend: {reason}", allow_module_level=True)  # once, not a thousand times


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [1, 4] if SMALL else [1, 4, 9, 25, 49, 128])
@pytest.mark.parametrize("n", N)
@pytest.mark.parametrize("kind", nine_kinds.KINDS)
def test_dendrograms_are_the_cores(kind, n, d, dtype):
    points = nine_kinds.draw(kind, (3, n, d), seed=n + d).astype(dtype)
    Z = reprune.linkage(torch.from_numpy(points).to(WHERE), backend="triton").cpu().numpy()
    np.testing.assert_array_equal(Z, reprune.linkage(points, backend="cpp"))


@pytest.mark.parametrize("method", ["single", "complete", "average"])
@pytest.mark.parametrize("kind", nine_kinds.KINDS)
def test_other_linkages_are_the_cores(kind, method):
    for n, d in ((n, d) for n in N for d in (1, 9)):
        points = nine_kinds.draw(kind, (3, n, d), seed=n + d)
        Z = reprune.linkage(torch.from_numpy(points).to(WHERE), method, backend="triton").cpu().numpy()
        np.testing.assert_array_equal(Z, reprune.linkage(points, method, backend="cpp"))


def layers():
    rng = np.random.default_rng(0)
    shapes = [(24, 6, 9), (24, 6, 1)] if SMALL else [(512, 64, 9), (2048, 32, 1), (64, 64, 9), (300, 20, 25)]
    weights = [rng.standard_normal((O, I, d), dtype=np.float32) for O, I, d in shapes]
    return [LayerProblem(str(k), (w.swapaxes(0, 1),), len(w) // 2) for k, w in enumerate(weights)]


@pytest.mark.parametrize("ties", ["random", "norm"])
def test_repeats_are_bit_identical_and_cpps(ties):
    problems = layers()
    placed = device.on_gpu(problems)
    expected = select_layers(problems, backend="cpp", ties=ties)
    first = select_layers(placed, backend="triton", ties=ties)
    for ours, theirs in zip(first, expected, strict=True):
        device.same_selection(ours, theirs, "layer")
    for _ in range(REPEATS - 1):
        for one, again in zip(first, select_layers(placed, backend="triton", ties=ties), strict=True):
            np.testing.assert_array_equal(one.order, again.order)
            assert one.heights == again.heights
            assert torch.equal(one.labels, again.labels)


@pytest.mark.skipif(ON_CPU, reason="nothing to wait for on the CPU")
def test_one_synchronisation_for_all_layers():
    placed = device.on_gpu(layers())
    select_layers(placed, backend="triton", ties="norm")  # compiles
    before = torch.cuda.get_sync_debug_mode()
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")  # which warns of itself
            select_layers(placed, backend="triton", ties="norm")
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert len([w for w in caught if "synchroniz" in str(w.message)]) == 1


@pytest.mark.skipif(ON_CPU, reason="no streams on the CPU")
def test_on_another_stream():
    problems = layers()[:2]
    placed = device.on_gpu(problems)
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
        found = select_layers(placed, backend="triton")
    for ours, theirs in zip(found, select_layers(problems, backend="cpp"), strict=True):
        device.same_selection(ours, theirs, "layer")


def test_tensors_in_and_out():
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=(20, 5, 3, 3))).to(WHERE)
    found = reprune.select_filters(weight, 9, backend="triton")
    expected = reprune.select_filters(weight.cpu(), 9, backend="cpp")
    for name in ("keep", "order", "gains", "labels", "clusters"):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.device.type == WHERE
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours.cpu(), theirs)
    assert found.heights == expected.heights
    order, gains = reprune.max_coverage(found.labels, 9, backend="triton")
    assert torch.equal(order, found.order)
    assert torch.equal(gains, found.gains)


def test_plans_equal_those_of_the_cpu():
    for how in ({}, {"ties": "norm"}, {"scope": "all"}, {"rule": "uniform", "round_to": 4}):
        expected = reprune.make_plan(small_resnet(), images(), sparsity=0.5, backend="cpp", **how)
        plan = reprune.make_plan(
            small_resnet().to(WHERE), images().to(WHERE), sparsity=0.5, backend="triton", **how
        )
        assert plan.to_json() == expected.to_json()
