"""The tests for a GPU on its compiled kernels, run in a simulator: a plugin of pytest.

``python -P -m pytest -p tests.tools.simulated_gpu -m gpu tests/test_gpu.py`` runs them without a GPU, with
problems of up to 200 points; tensors of the CPU are taken for the GPU's, and the picks are made on the
stand-in for a block. It needs the PTX simulator that tests/test_ptx.py runs on.
"""

import os

import pytest

from reprune.kernels import pairwise, select, square  # noqa: F401  # compiled ones, as TRITON_INTERPRET comes later
from tests.helpers.ptx import benchmarks, open_files, simulator

os.environ["TRITON_INTERPRET"] = "1"
os.environ["REPRUNE_GPU_TESTS"] = "simulated"


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(open_files)


@pytest.fixture(autouse=True)
def _device():
    with benchmarks()[2].Device(simulator()[0]):
        yield
