"""A process may fork at any time, whatever its threads do: nothing of ours stays locked in the child."""

import os

import pytest

from reprune import _core
from tests.helpers.processes import run_module

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.mark.parametrize("what", ["while_threads_cluster", "in_progress", "with_fresh_pools"])
def test_forked_children_inherit_no_lock(what):
    ignored = {"PYTHONWARNINGS": "ignore"}
    done = run_module("tests.programs.forks", _core.__file__, what, variables=ignored, timeout=300)
    assert done.returncode == 0, done.stderr
    children, bad = map(int, done.stdout.split())
    assert children > 0
    assert bad == 0
