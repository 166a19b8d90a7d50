"""Files: the same outputs to the last bit, clear errors, nothing half-written."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import reprune
from tests.helpers.networks import Residual, images, small_resnet

X = images()


def pruned(sparsity=0.5, **arguments):
    return reprune.prune(small_resnet(), X, sparsity=sparsity, **arguments)


@pytest.mark.parametrize("scope", ["internal", "all"])
def test_same_outputs_to_the_last_bit(tmp_path, scope):
    small, plan = pruned(scope=scope)
    path = tmp_path / "small.safetensors"
    reprune.save(small, path)
    loaded = reprune.load(path, small_resnet(seed=1))
    assert torch.equal(loaded(X), small(X))
    assert str(loaded) == str(small)
    assert reprune.read_plan(path).to_json() == plan.to_json()


def test_the_same_model_gives_the_same_bytes(tmp_path):
    path = tmp_path / "small.safetensors"
    contents = set()
    for network in [pruned()[0] for _ in range(2)] * 4:
        reprune.save(network, path)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_pruned_twice(tmp_path):
    """The plans of both rounds travel as one plan for the full model."""
    once, first = pruned()
    twice, second = reprune.prune(once, X, sparsity=0.5)
    path = tmp_path / "small.safetensors"
    reprune.save(twice, path)
    loaded = reprune.load(path, small_resnet(seed=1))
    assert torch.equal(loaded(X), twice(X))
    both = reprune.read_plan(path)
    assert both.flops == (first.flops[0], second.flops[1])
    name = "blocks.0.conv1"
    assert both.keep[name].tolist() == first.keep[name][second.keep[name]].tolist()
    assert both.channels[name] == 16


def test_a_whole_model(tmp_path):
    model = small_resnet()
    path = tmp_path / "whole.safetensors"
    reprune.save(model, path)
    assert torch.equal(reprune.load(path, small_resnet(seed=1))(X), model(X))
    with pytest.raises(ValueError, match="was not pruned, so there is no plan"):
        reprune.read_plan(path)


def test_tied_and_half_and_channels_last(tmp_path):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = Residual(6, 8)
            self.b = Residual(6, 8)
            self.b.conv1 = self.a.conv1
            self.head = nn.Conv2d(6, 2, 1)

        def forward(self, x):
            return self.head(self.b(self.a(torch.cat([x, x], 1))))

    torch.manual_seed(0)
    model = Shared().eval().to(torch.bfloat16).to(memory_format=torch.channels_last)
    x = X.to(torch.bfloat16)
    small, _ = reprune.prune(model, x, sparsity=0.5, rule="uniform")
    reprune.save(small, tmp_path / "small.safetensors")
    loaded = reprune.load(tmp_path / "small.safetensors", Shared().eval())
    assert loaded.a.conv1.weight is loaded.b.conv1.weight
    assert loaded.a.conv1.weight.dtype == torch.bfloat16
    assert torch.allclose(loaded(x), small(x), rtol=0.02, atol=0.02)


def test_errors_leave_the_model_alone(tmp_path):
    small, _ = pruned()
    good = tmp_path / "small.safetensors"
    reprune.save(small, good)
    raw = good.read_bytes()
    bad = tmp_path / "bad.safetensors"

    def head(content):
        save_file({"x": torch.zeros(1)}, bad, metadata={"reprune": content})

    def newer():
        head(json.dumps({"format": 2, "plan": None}))

    def other_shapes():
        with safe_open(good, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            save_file(tensors | {"head.bias": torch.zeros(6)}, bad, metadata=file.metadata())

    def writes(data):
        return lambda: bad.write_bytes(data)

    cases = [
        *(
            (writes(raw[:n]), "one that is damaged or no safetensors")
            for n in (4, 100, len(raw) // 2, len(raw) - 1)
        ),
        (writes(b"not a model"), "one that is damaged or no safetensors"),
        (writes(b""), "one that is damaged or no safetensors"),
        (lambda: save_file({"x": torch.zeros(1)}, bad), "a safetensors file of another kind"),
        (lambda: head("{"), "header is damaged"),
        (newer, "reads files of format 1; got format 2"),
        (lambda: head(json.dumps({"format": 1, "plan": {"format": 1}})), "damaged pruning plan"),
        (
            lambda: head(json.dumps({"format": 1, "plan": {"format": 2}})),
            "reads plans of format 1; got format 2",
        ),
        (other_shapes, r"bad.safetensors: head.bias has shape \(6,\), this model needs \(5,\)"),
        (
            lambda: head(json.dumps({"format": 1, "plan": None})),
            "not a file of this model: it lacks .* and has x",
        ),
    ]
    model = small_resnet(seed=1)
    expected = model(X)
    for make, message in cases:
        make()
        with pytest.raises(ValueError, match=message):
            reprune.load(bad, model)
        assert torch.equal(model(X), expected)
    with pytest.raises(ValueError, match=r"plan: made for a model whose .* has shape"):
        reprune.load(good, other := small_resnet(inner=24))
    other(X)
    with pytest.raises(FileNotFoundError, match="no such file"):
        reprune.load(tmp_path / "none.safetensors", model)


def test_state_that_is_not_tensors(tmp_path):
    class Odd(nn.Conv2d):
        def get_extra_state(self):
            return {"calls": 3}

        def set_extra_state(self, state):
            pass

    with pytest.raises(ValueError, match="its state '_extra_state' is a dict; only tensors can be saved"):
        reprune.save(Odd(3, 4, 1), tmp_path / "odd.safetensors")
    assert not list(tmp_path.iterdir())
