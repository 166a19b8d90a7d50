"""`reprune prune --weights` reads safetensors, one file or an index of several, where they are needed."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import reprune
from reprune.cli import main, models, weights

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        tied = nn.Parameter(torch.randn(16, 16, 1, 1))
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.b, self.c = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1)
        self.b.weight = self.c.weight = tied
        self.second, self.last = nn.Conv2d(16, 24, 3), nn.Conv2d(24, 5, 1)
        self.register_buffer("scale", torch.arange(1.0, 3.0)[:, None, None].repeat(8, 1, 1), persistent=False)

    def forward(self, x):
        x = self.norm(self.first(x)).relu() * self.scale
        return self.last(self.second(self.c(self.b(x)) + x).relu())

class Reads(Net):
    built = 0

    def __init__(self):
        super().__init__()
        Reads.built += 1
        self.size = float(self.last.weight.detach().abs().max()) * 0

    def forward(self, x):
        return super().forward(x) + self.size

def build():
    return Net()

def reads():
    return Reads()
"""
SIZE = ["--input-size", "3,12,12", "--rule", "uniform", "--flops", "0.6"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a network's code, and its weights in two files with an index."""
    (tmp_path / "netcode.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "netcode", raising=False)
    state = {name: tensor.clone() for name, tensor in network(3).state_dict().items() if name != "c.weight"}
    places = {name: f"model-{k % 2 + 1}-of-2.safetensors" for k, name in enumerate(state)}
    for file in {*places.values()}:
        save_file({name: state[name] for name in state if places[name] == file}, file)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    save_file(state, "one.safetensors")
    torch.save(network(3).state_dict(), "plain.pt")
    return tmp_path


def network(seed, kind="Net"):
    names = {}
    exec(CODE, names)
    torch.manual_seed(seed)
    return names[kind]()


def pruned(capsys, given, model="netcode:build"):
    assert main(["prune", model, "--weights", given, "-o", "small", *SIZE]) == 0, capsys.readouterr().err
    capsys.readouterr()
    with open("small", "rb") as file:
        return file.read()


def test_all_forms_give_the_same_file(folder, capsys):
    expected = pruned(capsys, "plain.pt")
    assert pruned(capsys, "one.safetensors") == expected
    assert pruned(capsys, "model.safetensors.index.json") == expected
    small = reprune.load("small", network(5)).eval()
    plan = reprune.read_plan("small")
    model = network(3).eval()
    reprune.apply(plan, model)
    x = torch.randn(2, 3, 12, 12)
    assert torch.equal(small(x), model(x))
    assert small.b.weight is small.c.weight


def mapped_from(address):
    """The file whose part is in memory at `address`."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            return line
    return ""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_the_parameters_are_parts_of_the_files(folder):
    model = models.build("netcode:build", 0, empty=True)
    assert all(parameter.is_meta for parameter in model.parameters())
    assert model.b.weight is model.c.weight
    assert not model.scale.is_meta
    weights.load(model, folder / "model.safetensors.index.json")
    for name, parameter in model.named_parameters():
        assert mapped_from(parameter.data_ptr()).endswith("-of-2.safetensors"), name
        assert torch.equal(parameter, network(3).get_parameter(name))
    assert model.b.weight is model.c.weight


def test_a_network_that_reads_values_while_it_is_built(folder, capsys):
    found = pruned(capsys, "one.safetensors", "netcode:reads")
    assert found == pruned(capsys, "plain.pt", "netcode:reads")


def index(places):
    return json.dumps({"weight_map": places})


@pytest.mark.parametrize(
    "text,message",
    [
        ("[1, 2]", "is not an index"),
        ("{", "is not an index"),
        (json.dumps({"weight_map": 3}), "is not an index"),
        (index({"first.weight": 3}), "is not an index"),
        (index({"first.weight": "../one.safetensors"}), "no plain name"),
        (index({"first.weight": "gone.safetensors"}), "gone.safetensors, which is not beside it"),
        (index({"other": "one.safetensors"}), "lack 1 tensors (other)"),
        (index({"first.weight": "one.safetensors"}), "do not fit the network"),
        (index({"first.weight": "plain.pt"}), "do not fit the network"),
    ],
)
def test_wrong_indexes(folder, capsys, text, message):
    (folder / "bad.index.json").write_text(text)
    assert main(["prune", "netcode:build", "--weights", "bad.index.json", "-o", "small", *SIZE]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert "bad.index.json" in error
    assert not (folder / "small").exists()


def test_no_file_of_the_index_is_overwritten(folder, capsys):
    file = folder / "model-1-of-2.safetensors"
    before = file.read_bytes()
    given = ["--weights", "model.safetensors.index.json", "-o", file.name]
    assert main(["prune", "netcode:build", *given, *SIZE]) == 2
    assert "which would be overwritten" in capsys.readouterr().err
    assert file.read_bytes() == before
