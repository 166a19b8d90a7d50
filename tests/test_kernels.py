"""Under Triton's interpreter: the public functions with backend="triton", and a part of
tests/tools/interpreted_kernels.py; in a process of their own, for Triton decides at its import."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.processes import run_module
from tests.helpers.ptx import needs_triton, older_triton

HERE = Path(__file__).parent
PUBLIC = HERE / "programs" / "interpreted_api.py"
TABLE = HERE / "tools" / "interpreted_kernels.py"
TREES = [
    *((kind, 17, 1, "float32") for kind in ("normal", "lattice", "duplicates")),
    ("mixed scales", 9, 1, "float64"),
    ("normal", 17, 4, "float32"),
    ("duplicates", 9, 4, "float64"),
    ("lattice", 6, 4, "float32"),
    ("constant", 9, 9, "float32"),
    ("clusters", 9, 25, "float32"),
    ("normal", 1, 4, "float64"),
    ("normal", 2, 4, "float64"),
]
CLUSTERS = [("zeros", 17, 1), ("normal", 9, 4)]


NUMPY = tuple(map(int, np.__version__.split(".")[:2]))
IGNORED = "ignore:Conversion of an array with ndim:DeprecationWarning"  # of Triton's interpreter before 3.8


@needs_triton
@pytest.mark.skipif(older_triton and NUMPY >= (2, 4), reason="numpy 2.4 breaks this interpreter")
def test_under_the_interpreter(monkeypatch):
    monkeypatch.delenv("REPRUNE_BACKEND", raising=False)
    ids = [f"{TABLE}::test_trees[{kind}-{n}-{d}-{dtype}]" for kind, n, d, dtype in TREES]
    ids += [f"{TABLE}::test_clusters[{kind}-{n}-{d}]" for kind, n, d in CLUSTERS]
    command = "pytest", "-v", "-W", IGNORED, PUBLIC, *ids
    run = run_module(*command, variables={"TRITON_INTERPRET": "1"}, cwd=HERE.parent)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count(f"{TABLE.name}::") == len(ids)
    assert run.stdout.count(f"{PUBLIC.name}::") > 40
