"""Saves that are killed leave a whole file; `tests/killed_saves.py` kills more."""

import subprocess
import sys
from pathlib import Path


def test_a_file_is_whole_whenever_its_writer_is_killed():
    command = [sys.executable, str(Path(__file__).with_name("killed_saves.py")), "12", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "12 kills" in done.stdout
