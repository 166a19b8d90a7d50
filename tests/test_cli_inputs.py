"""`reprune prune --inputs` takes networks whose inputs are not one image."""

import sys

import pytest
import torch

import reprune
from reprune.cli import main

CODE = """
import torch
from torch import nn

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.up, self.down = nn.Embedding(50, 16), nn.Linear(16, 40), nn.Linear(40, 16)
        self.head = nn.Linear(16, 50)

    def forward(self, ids, mask=None):
        x = self.words(ids)
        x = x + self.down(torch.relu(self.up(x)))
        return self.head(x if mask is None else x * mask[..., None])

def build(): return Words()
def ids(): return torch.arange(12).view(2, 6)
def several(): return ids(), torch.ones(2, 6)
def named(): return {"mask": torch.ones(2, 6), "ids": ids()}
def number(): return 3
def wrong(): return {"words": ids()}
def batches(): return [ids() for _ in range(4)]
"""
PRUNE = ["prune", "wordcode:build", "--layers", "linear", "--params", "0.8", "-o", "small"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "wordcode.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "wordcode", raising=False)
    return tmp_path


@pytest.mark.parametrize("function", ["ids", "several", "named"])
def test_what_a_function_returns(function, capsys):
    assert main([*PRUNE, "--inputs", f"wordcode:{function}"]) == 0, capsys.readouterr().err
    code = sys.modules["wordcode"]
    small = reprune.load("small", code.build())
    assert small.up.out_features == small.down.in_features < 40
    assert small(code.ids()).shape == (2, 6, 50)


def test_several_targets_and_calibration(capsys):
    assert main([*PRUNE[:4], "--inputs", "wordcode:ids", "--params", "0.7,0.8", "--measure"]) == 0
    words = ["--inputs", "wordcode:ids", "--calibrate", "wordcode:batches"]
    assert main([*PRUNE, *words]) == 0, capsys.readouterr().err
    assert reprune.load("small", sys.modules["wordcode"].build()).up.out_features < 40


@pytest.mark.parametrize(
    "words,message",
    [
        (["--inputs", "wordcode:number"], "it returned a int"),
        (["--inputs", "wordcode:gone"], "has no function 'gone'"),
        (["--inputs", "ids"], "expected package.module:function; got 'ids'"),
        (["--inputs", "wordcode:wrong"], "does not take what wordcode:wrong returned (TypeError"),
        (["--inputs", "wordcode:ids", "--input-size", "3,8,8"], "--input-size: expected none"),
        (["--inputs", "wordcode:ids", "--channels-last"], "--channels-last: expected none"),
        (["--inputs", "wordcode:several", "--calibrate", "."], "--calibrate: "),
        ([], "or others than images with --inputs"),
    ],
)
def test_errors(words, message, folder, capsys):
    assert main([*PRUNE, *words]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "small").exists()


def test_token_ids_of_a_network_without_values(monkeypatch):
    """A large network is checked by its shapes; where that fails, by running it."""
    from reprune.cli import models
    from reprune.cli.errors import UserError

    monkeypatch.setattr(models, "LARGE_BYTES", 0)
    names = {}
    exec(CODE, names)
    models.check_input(names["build"](), names["named"](), "wordcode:named")
    with pytest.raises(UserError, match="does not take what"):
        models.check_input(names["build"](), torch.zeros(1, 3, 8, 8), "wordcode:image")


def test_a_folder_that_is_no_network(tmp_path, capsys):
    assert main(["prune", str(tmp_path), "-o", str(tmp_path / "small.safetensors")]) == 2
    assert "has no config.json; save_pretrained of transformers writes one" in capsys.readouterr().err
