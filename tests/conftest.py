"""What holds for every test."""

import pytest
import torch

from reprune import _core

# The networks of the tests are small: one thread of torch's is faster than two that wait for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def isa():
    """Sets the instruction set by name; every test starts with the machine's best, whatever ran before."""
    _core.set_isa("")
    yield _core.set_isa
    _core.set_isa("")
