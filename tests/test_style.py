"""Lint, format and types are part of the test suite: one command tells everything."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MOST_LINES = 400
SOURCES = {".py", ".pyi", ".cpp", ".hpp", ".cu"}


@pytest.mark.parametrize(
    "command", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)], ids=" ".join
)
def test_tool_finds_nothing(command: tuple[str, ...]) -> None:
    run = subprocess.run([sys.executable, "-P", "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_files_are_short() -> None:
    folders = ("reprune", "kernels", "csrc", "tests", "benchmarks", "examples")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.*") if path.suffix in SOURCES]
    assert files
    assert [str(path) for path in files if len(path.read_text().splitlines()) > MOST_LINES] == []
