import importlib.util
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import reprune
from reprune.clustering import backends as backend
from reprune.targets import Settings, checked
from tests.helpers.imports import found, one_process
from tests.helpers.networks import images, small_resnet


def test_auto_goes_by_the_device(monkeypatch):
    monkeypatch.delenv("REPRUNE_BACKEND", raising=False)
    assert backend.resolve("auto") == "cpp"
    assert backend.resolve("auto", "cuda") == ("cpp" if backend.unavailable("triton") else "triton")
    assert backend.resolve("auto", "cuda", on_gpu=False) == "cpp"
    monkeypatch.setenv("REPRUNE_BACKEND", "reference")
    assert backend.resolve("auto") == "reference"
    assert backend.resolve("cpp") == "cpp"  # a named backend stays
    monkeypatch.setenv("REPRUNE_BACKEND", "fast")
    with pytest.raises(
        ValueError, match="environment variable REPRUNE_BACKEND: expected one of auto, reference"
    ):
        backend.resolve("auto")


@pytest.mark.parametrize("channels, expected", [(65_535, "triton"), (65_536, "cpp")])
def test_auto_is_the_cpu_where_a_group_is_too_wide_for_the_gpu(monkeypatch, channels, expected):
    monkeypatch.delenv("REPRUNE_BACKEND", raising=False)
    monkeypatch.setattr(backend, "unavailable", lambda name: None)
    assert checked(sparsity=0.5).on("cuda", channels).backend == expected
    assert checked(sparsity=0.5, backend="triton").on("cuda", channels).backend == "triton"


def test_plans_and_pruners_know_the_widest_group(monkeypatch):
    asked, on = [], Settings.on
    monkeypatch.setattr(Settings, "on", lambda self, *given: asked.append(given) or on(self, *given))
    model = small_resnet()
    plan = reprune.make_plan(model, images(), sparsity=0.5)
    widest = max(model.get_submodule(name).out_channels for name in plan.keep)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    reprune.Pruner(model, optimizer, images(), sparsity=0.5, interval=1, until=2)
    assert asked == [("cpu",), ("cpu", widest)] * 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_named_backend_never_falls_back():
    reason = backend.unavailable("triton")
    assert reason is not None
    points = np.eye(3)
    for call in (
        lambda: reprune.linkage(points, backend="triton"),
        lambda: reprune.cut(reprune.linkage(points), 1.0, backend="triton"),
        lambda: reprune.max_coverage(np.zeros((3, 2), int), 1, backend="triton"),
        lambda: reprune.select_filters(points, 1, backend="triton"),
        lambda: reprune.make_plan(small_resnet(), images(), sparsity=0.5, backend="triton"),
    ):
        with pytest.raises(reprune.BackendUnavailable) as caught:
            call()
        assert str(caught.value) == f"backend 'triton': {reason}"


def test_a_core_of_another_version_is_not_used(monkeypatch):
    other = SimpleNamespace(__version__="0.0.9", __file__="_core.so")
    monkeypatch.delitem(sys.modules, "reprune._core", raising=False)
    monkeypatch.setattr(backend.importlib, "import_module", lambda name: other)
    expected = f"_core.so is the core of reprune 0.0.9, and this is reprune {reprune.__version__}; install"
    with pytest.raises(reprune.BackendUnavailable, match=re.escape(expected)):
        reprune.linkage(np.eye(3))
    assert "reprune._core" not in sys.modules


@pytest.mark.parametrize(
    "state, reason",
    [
        ({"triton": False}, "the package triton is not installed; run 'pip install triton'"),
        ({"version": (3, 4)}, "expected Triton 3.6 or newer, which torch 2.10 brings; got 3.4"),
        ({}, r"no GPU: torch.cuda.is_available\(\) is False \(torch "),
        ({"gpu": True}, "the C\\+\\+ core was built without CUDA; install nvcc and run "),
        ({"gpu": True, "cuda": True, "capability": (7, 5)}, "compute capability 8.0 or newer; got 7.5"),
        ({"gpu": True, "cuda": True, "error": "too old"}, "C\\+\\+ core cannot run on this GPU: too old"),
    ],
)
def test_the_reason_why_there_is_no_triton(monkeypatch, state, reason):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: state.get("gpu", False))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: state.get("capability", (9, 0)))
    monkeypatch.setattr(backend.core(), "has_cuda", state.get("cuda", False))
    monkeypatch.setattr(backend.core(), "cuda_error", lambda: state.get("error", ""), raising=False)
    monkeypatch.setattr(backend, "_triton_version", lambda: state.get("version", backend.OLDEST_TRITON))
    if not state.get("triton", True):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    elif importlib.util.find_spec("triton") is None:
        pytest.skip("no triton here")
    assert re.search(reason, backend.unavailable("triton"))


@one_process
def test_auto_on_the_cpu_never_touches_triton():
    before, after = (
        {name for name in found()[when] if name.startswith(("triton", "reprune.kernels"))}
        for when in ("torch", "called")  # torch may bring triton along
    )
    assert "reprune.clustering.backends.cpp" in found()["called"]
    assert after <= before, after - before


def test_threads(monkeypatch):
    monkeypatch.delenv("REPRUNE_NUM_THREADS", raising=False)
    assert backend.num_threads() >= 1
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "3")
    assert backend.num_threads() == 3
    for wrong in ("0", "-1", "many", ""):
        monkeypatch.setenv("REPRUNE_NUM_THREADS", wrong)
        with pytest.raises(ValueError, match="REPRUNE_NUM_THREADS: expected a positive integer"):
            backend.num_threads()


@one_process
def test_import_without_the_core():
    said = found()["no core"]
    assert said["reference"] == [2, 4]
    assert "pip install" in said["unavailable"]
    assert "backend 'cpp': the C++ core reprune._core is not built; run 'pip install -e .'" in said["error"]
