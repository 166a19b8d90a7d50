"""A part of tests/tools/interpreted_kernels.py: in a process of its own, for Triton decides at its import."""

from pathlib import Path

from tests.helpers.processes import run_module
from tests.helpers.ptx import needs_triton

HERE = Path(__file__).parent
TABLE = HERE / "tools" / "interpreted_kernels.py"
CASES = [
    *((kind, 17, d, "float64") for kind in ("normal", "sparse", "duplicates", "zeros") for d in (1, 9)),
    *(("heavy", n, 4, "float32") for n in (1, 2, 3, 65)),
    ("heavy", 64, 1, "float32"),
    ("heavy", 17, 25, "float32"),
    ("normal", 17, 49, "float64"),
]


@needs_triton
def test_ward_under_the_interpreter():
    ids = [f"{TABLE}::test_ward[{kind}-{n}-{d}-{dtype}]" for kind, n, d, dtype in CASES]
    run = run_module("pytest", "-q", *ids, variables={"TRITON_INTERPRET": "1"}, cwd=HERE)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{len(CASES)} passed" in run.stdout
