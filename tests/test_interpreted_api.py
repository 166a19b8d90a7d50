"""backend="triton" without a GPU: in a process of its own, for Triton decides at its import."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
def test_under_the_interpreter():
    here = Path(__file__).parent
    command = [sys.executable, "-P", "-m", "pytest", "-q", str(here / "interpreted_api.py")]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    environment.pop("REPRUNE_BACKEND", None)
    run = subprocess.run(command, cwd=here.parent, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert " passed" in run.stdout
