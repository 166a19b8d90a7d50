"""A process may fork at any time, whatever its threads do: nothing of ours stays locked in the child."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reprune import _core

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@pytest.mark.parametrize("what", ["while_threads_cluster", "in_progress", "with_fresh_pools"])
def test_forked_children_inherit_no_lock(what):
    program = Path(__file__).with_name("forks.py")
    command = [sys.executable, "-P", "-W", "ignore", str(program), _core.__file__, what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    children, bad = map(int, done.stdout.split())
    assert children > 0
    assert bad == 0
