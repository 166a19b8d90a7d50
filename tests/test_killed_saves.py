"""Saves that are killed leave a whole file; `tests/tools/killed_saves.py` kills more."""

from tests.helpers.forked import one_process


@one_process
def test_a_file_is_whole_whenever_its_writer_is_killed(run_forked):
    done = run_forked("tests.tools.killed_saves", 12, 3)
    assert done.returncode == 0, done.stderr
    assert "12 kills" in done.stdout
