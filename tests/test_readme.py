"""What the README says is done: its Python runs, its commands are understood."""

import re
import shlex
from pathlib import Path

import pytest

from reprune.cli import parser

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_python_blocks_run_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = blocks("python")
    assert len(code) >= 4
    names: dict[str, object] = {}
    for number, block in enumerate(code):
        exec(compile(block, f"README.md, Python block {number}", "exec"), names)
    assert (tmp_path / "small.safetensors").is_file()


def test_commands_are_understood() -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines() if "bin/pip" not in line]
    calls = [shlex.split(line)[1:] for line in lines if Path(line.split()[0]).name == "reprune"]
    assert len(calls) >= 4
    for call in calls:
        parser().parse_args(call)  # exits the test with argparse's message if it does not know something


@pytest.mark.parametrize("mark", ["demo", "tests"])
def test_both_commands_stand_where_they_are_looked_for(mark: str) -> None:
    found = re.search(rf"<!-- {mark} -->\n```bash\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert found[1].startswith("python3 -m venv .venv\n.venv/bin/pip install ")
