"""What holds for every test."""

import pytest
import torch

from reprune import _core
from tests.helpers.forked import Forks

# The networks of the tests are small: one thread of torch's is faster than two that wait for each other.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def run_forked():
    """Runs programs that need torch in processes of their own, without importing it for each."""
    with Forks() as run_module:
        yield run_module


@pytest.fixture(autouse=True)
def isa():
    """Sets the instruction set by name; every test starts with the machine's best, whatever ran before."""
    _core.set_isa("")
    yield _core.set_isa
    _core.set_isa("")
