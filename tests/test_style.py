"""Lint, format and types are part of the test suite: one command tells everything."""

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.processes import run_module

ROOT = Path(__file__).parents[1]
MOST_LINES = 400
SOURCES = {".py", ".pyi", ".cpp", ".hpp", ".cu"}


@pytest.mark.parametrize("command", ["ruff check .", "ruff format --check ."])
def test_ruff_finds_nothing(command: str) -> None:
    checked(command)


@pytest.mark.skipif(np.__version__ < "2", reason="the types are those of numpy 2")
def test_mypy_finds_nothing_in_the_package_and_two_errors_of_its_user(tmp_path: Path) -> None:
    """One run for both, as it takes half a minute: a type checker knows our types, and no other name."""
    program = tmp_path / "program.py"
    lines = ["import reprune", "a: int = reprune.Pruner", "reprune.graph.register_rule", "reprune.linkages"]
    program.write_text("\n".join(lines))
    run = run_module("mypy", "--no-error-summary", "reprune", "kernels", program, cwd=ROOT)
    assert run.stdout.count("\n") == 2, run.stdout + run.stderr
    pruner, linkages = run.stdout.splitlines()
    assert "program.py:2: error: " in pruner
    assert "type[Pruner]" in pruner
    assert 'program.py:4: error: Module has no attribute "linkages"' in linkages


@pytest.mark.xdist_group("groups")
def test_groups_of_tests_stay_together(request: pytest.FixtureRequest) -> None:
    """Several processes share the tests, and what a group sets up is to be set up once."""
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("there is one process, or pytest was not told --dist loadgroup")
    assert request.node.nodeid.endswith("@groups")


def checked(command: str) -> None:
    run = run_module(*command.split(), cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


def test_files_are_short() -> None:
    folders = ("reprune", "kernels", "csrc", "tests", "benchmarks", "examples")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.*") if path.suffix in SOURCES]
    assert files
    assert [str(path) for path in files if len(path.read_text().splitlines()) > MOST_LINES] == []
