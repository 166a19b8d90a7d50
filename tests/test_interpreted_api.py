"""backend="triton" without a GPU: in a process of its own, for Triton decides at its import."""

import importlib.util
from pathlib import Path

import pytest

from tests.helpers.processes import run_module

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_under_the_interpreter(monkeypatch):
    monkeypatch.delenv("REPRUNE_BACKEND", raising=False)
    tests = "tests/programs/interpreted_api.py"
    run = run_module("pytest", "-q", tests, variables={"TRITON_INTERPRET": "1"}, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
