"""The code on the pages of the site runs, and their commands are understood."""

import functools
import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
import torch

from reprune.cli import parser

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page,needs", [("prune.md", "torchvision"), ("cluster.md", "sklearn")])
def test_python_code_on_the_pages_runs(
    page: str, needs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(needs)
    monkeypatch.chdir(tmp_path)
    if needs == "torchvision":  # the page's network with one block in each of its stages, which repeat them
        resnet = importlib.import_module("torchvision.models.resnet")
        short = functools.partial(resnet.ResNet, resnet.BasicBlock, [1, 1, 1, 1])
        monkeypatch.setattr(importlib.import_module("torchvision.models"), "resnet18", short)
    code = blocks(page, "python")
    assert len(code) >= 3
    names: dict[str, object] = {}
    for number, block in enumerate(code):
        exec(compile(block, f"{page}, Python block {number}", "exec"), names)


@pytest.mark.parametrize("page", ["prune.md", "cluster.md"])
def test_commands_are_understood(page: str) -> None:
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", "").splitlines()]
    assert lines
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "reprune"
        parser().parse_args(words)


def test_the_tutorial_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """What it claims, and that it prints as much as the page shows."""
    pytest.importorskip("sklearn")
    threads = torch.get_num_threads()
    cells = json.loads((DOCS / "tutorial.ipynb").read_text())["cells"]
    names: dict[str, object] = {"__name__": "tutorial"}
    try:
        for number, cell in enumerate(cells):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"tutorial.ipynb, cell {number}", "exec"), names)
                shown = "".join("".join(output["text"]) for output in cell["outputs"])
                assert len(capsys.readouterr().out.splitlines()) == len(shown.splitlines())
    finally:
        torch.set_num_threads(threads)
    assert names["dense"] > 0.9
    assert names["tuned"] > 0.9
    assert names["plan"].flops[1] <= 0.4 * names["plan"].flops[0]
