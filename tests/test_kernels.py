"""A part of tests/interpreted_kernels.py: in a process of its own, for Triton decides at its import."""

import os
import subprocess
import sys
from pathlib import Path

from ptx import needs_triton

HERE = Path(__file__).parent
CASES = [
    *((kind, 17, d, "float64") for kind in ("normal", "sparse", "duplicates", "zeros") for d in (1, 9)),
    *(("heavy", n, 4, "float32") for n in (1, 2, 3, 65)),
    ("heavy", 64, 1, "float32"),
    ("heavy", 17, 25, "float32"),
    ("normal", 17, 49, "float64"),
]


@needs_triton
def test_ward_under_the_interpreter():
    ids = [f"interpreted_kernels.py::test_ward[{kind}-{n}-{d}-{dtype}]" for kind, n, d, dtype in CASES]
    command = [sys.executable, "-P", "-m", "pytest", "-q", *ids]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(CASES)} passed" in run.stdout
