"""The core compiled for aarch64 and run in an emulator, where the tools for that are installed."""

import shutil
from itertools import islice
from pathlib import Path

import pytest

from tests.tools import cross

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(COMPILER), reason=f"needs {COMPILER}")
@pytest.mark.skipif(not shutil.which(EMULATOR), reason=f"needs {EMULATOR}")
def test_aarch64_gives_the_answers_of_the_reference(tmp_path: Path) -> None:
    program = cross.compiled(COMPILER, tmp_path, jobs=2)
    count, wrong = cross.differences(program, EMULATOR, seed=1)
    assert count > 100
    assert wrong == []


def test_a_wrong_answer_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that answers zeros to everything."""
    asked = list(islice(cross.problems(cross.np.random.default_rng(0)), 16, 24))
    program = tmp_path / "zeros"
    size = sum(answer.nbytes for _, _, answers in asked for answer in answers)
    program.write_text(f"#!/bin/sh\ncat > /dev/null\nhead -c {size} /dev/zero\n")
    program.chmod(0o755)
    monkeypatch.setattr(cross, "problems", lambda rng: asked)
    count, wrong = cross.differences(program, "", seed=0)
    assert 0 < len(wrong) <= count == len(asked)
