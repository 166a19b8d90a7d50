"""What holds for every test."""

import os
from contextlib import suppress
from importlib import import_module

import pytest

from tests.helpers.forked import Forks

LIBRARIES = "torch torchvision timm torch_pruning lightning.pytorch sklearn.cluster scipy.stats".split()
"""What takes longest to import, above all in a new environment, where Python compiles all of it first."""


def pytest_collection(session):
    """Before a process that runs tests imports them; what only hands them out to others needs no torch.

    Of two processes one imports the libraries from the last to the first, so that each compiles half of them.
    """
    if session.config.getoption("numprocesses", None):
        return
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        for name in LIBRARIES[:: -1 if int(worker.removeprefix("gw")) % 2 else 1]:
            with suppress(ImportError):
                import_module(name)
    import torch

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
    from reprune import _core

    _core.set_isa("")
    yield _core.set_isa
    _core.set_isa("")
