"""Programs in processes of their own without the seconds that an import of torch takes: they are forked from
one process that has imported it and ours, and has done nothing else (`tests/programs/forking.py`)."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.helpers.processes import environment

one_process = pytest.mark.xdist_group("forked")
"""The group of the tests that ask: one process that imports serves them all."""


class Forks:
    """The process that forks; it ends when its input does. Its children compute on one thread."""

    def __init__(self):
        self.server = subprocess.Popen(
            [sys.executable, "-m", "tests.programs.forking"],
            env=environment(OMP_NUM_THREADS="1", REPRUNE_NUM_THREADS="1"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self):
        return self.run_module

    def __exit__(self, *error):
        with self.server:
            pass

    def run_module(self, module, *words, variables=(), timeout=240):
        """`python -m module words` in this folder, as :func:`tests.helpers.processes.run_module`."""
        with tempfile.TemporaryDirectory() as folder:
            request = {"module": module, "words": [str(word) for word in words], "outputs": folder}
            request |= {"variables": dict(variables), "timeout": timeout, "folder": os.getcwd()}
            print(json.dumps(request), file=self.server.stdin, flush=True)
            status = int(self.server.stdout.readline())
            said = [(Path(folder) / name).read_text() for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess([module, *words], status, *said)
