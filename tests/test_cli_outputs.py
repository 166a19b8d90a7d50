"""What the command line writes, and what it must not overwrite."""

import os
import stat
import sys

import pytest
import torch

import reprune
from reprune.cli import main

TOY = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
"""
PRUNE = ("prune", "toy_outputs:build", "--input-size", "3,8,8", "--sparsity", "0.5")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a network's code and its weights."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy_outputs.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("toy_outputs", None)
    import toy_outputs

    torch.save(toy_outputs.build().state_dict(), tmp_path / "weights.pt")
    return tmp_path


@pytest.mark.parametrize("kind", ["itself", "symbolic link", "hard link", "link to it", "other way"])
def test_the_weights_are_not_overwritten(folder, capsys, kind):
    output = folder / "out"
    given = folder / "weights.pt"
    if kind == "itself":
        output = given
    elif kind == "symbolic link":
        output.symlink_to("weights.pt")
    elif kind == "hard link":
        os.link(given, output)
    elif kind == "link to it":
        output, given = given, output
        given.symlink_to("weights.pt")
    else:
        output = folder / "." / ".." / folder.name / "weights.pt"
    before = (folder / "weights.pt").read_bytes()
    assert main([*PRUNE, "--weights", str(given), "-o", str(output)]) == 2
    assert "is the file of --weights, which would be overwritten" in capsys.readouterr().err
    assert (folder / "weights.pt").read_bytes() == before


def test_the_code_of_the_network_is_not_overwritten(folder, capsys):
    before = (folder / "toy_outputs.py").read_text()
    assert main([*PRUNE, "-o", "toy_outputs.py"]) == 2
    assert "is the file of MODEL, which would be overwritten" in capsys.readouterr().err
    assert (folder / "toy_outputs.py").read_text() == before


def test_a_page_and_a_picture_cannot_share_a_file(folder, capsys):
    assert main(["bench", "--quick", "--markdown", "x.png", "--plot", str(folder / "x.png")]) == 2
    assert "is the file of --markdown, which would be overwritten" in capsys.readouterr().err
    assert not (folder / "x.png").exists()


def test_a_dry_run(folder, capsys):
    """Into a device of one's own like /dev/null."""
    try:
        os.mknod("null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root can make devices")
    assert main([*PRUNE, "-o", "null"]) == 0
    assert stat.S_ISCHR(os.stat("null").st_mode)
    said = capsys.readouterr().out
    assert main([*PRUNE, "-o", "out"]) == 0
    assert said.splitlines()[:5] == capsys.readouterr().out.splitlines()[:5]
    assert {*os.listdir()} - {"__pycache__"} == {"null", "out", "toy_outputs.py", "weights.pt"}


def test_a_link_is_written_through(folder, capsys):
    (folder / "far").mkdir()
    (folder / "link").symlink_to("far/small")
    assert main([*PRUNE, "-o", "link"]) == 0
    assert os.readlink("link") == "far/small"
    assert reprune.read_plan("far/small").keep


def test_a_fifo_without_a_reader_is_told(folder, capsys):
    os.mkfifo("fifo")
    assert main([*PRUNE, "-o", "fifo"]) == 2
    assert "a FIFO that nobody reads" in capsys.readouterr().err
