"""Saves that are killed leave a whole file; `tests/tools/killed_saves.py` kills more."""

from tests.helpers.processes import run_module


def test_a_file_is_whole_whenever_its_writer_is_killed():
    done = run_module("tests.tools.killed_saves", 12, 3, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "12 kills" in done.stdout
