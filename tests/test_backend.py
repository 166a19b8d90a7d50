import os
import subprocess
import sys

import numpy as np
import pytest

import reprune
from reprune import backend


def test_auto_goes_by_the_device(monkeypatch):
    monkeypatch.delenv("REPRUNE_BACKEND", raising=False)
    assert backend.resolve("auto") == "cpp"
    assert backend.resolve("auto", "cuda") == ("cpp" if backend.unavailable("triton") else "triton")
    monkeypatch.setenv("REPRUNE_BACKEND", "reference")
    assert backend.resolve("auto") == "reference"
    assert backend.resolve("cpp") == "cpp"  # a named backend stays
    monkeypatch.setenv("REPRUNE_BACKEND", "fast")
    with pytest.raises(
        ValueError, match="environment variable REPRUNE_BACKEND: expected one of auto, reference"
    ):
        backend.resolve("auto")


def test_a_named_backend_never_falls_back():
    reason = backend.unavailable("triton")
    assert reason is not None
    points = np.eye(3)
    labels = np.zeros((3, 2), int)
    for call in (
        lambda: reprune.linkage(points, backend="triton"),
        lambda: reprune.max_coverage(labels, 1, backend="triton"),
        lambda: reprune.select_filters(points, 1, backend="triton"),
    ):
        with pytest.raises(reprune.BackendUnavailable, match="backend 'triton': "):
            call()


def test_threads(monkeypatch):
    monkeypatch.delenv("REPRUNE_NUM_THREADS", raising=False)
    assert backend.num_threads() >= 1
    monkeypatch.setenv("REPRUNE_NUM_THREADS", "3")
    assert backend.num_threads() == 3
    for wrong in ("0", "-1", "many", ""):
        monkeypatch.setenv("REPRUNE_NUM_THREADS", wrong)
        with pytest.raises(ValueError, match="REPRUNE_NUM_THREADS: expected a positive integer"):
            backend.num_threads()


def test_import_without_the_core():
    program = """
import sys
sys.modules["reprune._core"] = None  # as if it were not built
import numpy, reprune
from reprune import backend
assert reprune.linkage(numpy.eye(3), backend="reference").shape == (2, 4)
assert "pip install" in backend.unavailable("cpp")
try:
    reprune.linkage(numpy.eye(3))
except reprune.BackendUnavailable as error:
    assert "backend 'cpp': the C++ core reprune._core is not built; run 'pip install .'" in str(error), error
else:
    raise AssertionError
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith("REPRUNE_")}
    done = subprocess.run([sys.executable, "-P", "-c", program], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
