"""Files of trainings: killed at random moments and resumed, bit-exact; clear errors, nothing lost."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import reprune
from reprune.files.codec import decode, encode
from tests.helpers.forked import one_process
from tests.helpers.networks import images, small_resnet

X = images(2)


@one_process
@pytest.mark.parametrize(
    "trainings", [{"shrink": 2, "mask": 1}, pytest.param({"mask": 2}, marks=pytest.mark.slow)], ids=str
)
def test_a_killed_training_resumes_bit_exactly(trainings, run_forked):
    """Final plan and weights, EMA copies too, equal those of the training without interruption, to the
    bit."""
    words = [word for training in trainings.items() for word in training]
    run = run_forked("tests.tools.interrupted", 5, *words)
    assert run.returncode == 0, run.stderr
    told = [line.split() for line in run.stdout.splitlines()]
    assert [mode for mode, *_ in told] == list(trainings)
    for _, *digests in told:
        assert len(digests) >= 2
        assert len(set(digests)) == 1


def start(seed=0, **settings):
    model = small_resnet(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    pruner = reprune.Pruner(model, optimizer, X, **{"sparsity": 0.5, "interval": 1, "until": 3, **settings})
    return model, optimizer, pruner


def epoch(model, optimizer, pruner):
    model.train()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images(8)), torch.arange(8) % 5).backward()
    optimizer.step()
    pruner.step()


@pytest.mark.parametrize("mode", ["shrink", "mask"])
@pytest.mark.parametrize("epochs", [1, 4])
def test_state_dict_of_the_pruner_and_torch_save(tmp_path, mode, epochs):
    """Plain PyTorch does as well, the pruner first; after finalize() too."""
    first, optimizer, pruner = start(mode=mode)
    for _ in range(epochs):
        epoch(first, optimizer, pruner)
    if epochs == 4:
        pruner.finalize()
    torch.save([pruner.state_dict(), first.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")

    second, other, again = start(seed=1, mode=mode)
    states = torch.load(tmp_path / "state.pt", weights_only=True)
    for part, state in zip((again, second, other), states, strict=True):
        part.load_state_dict(state)
    assert str(second) == str(first)
    assert str(again.history) == str(pruner.history)
    for _ in range(2):
        epoch(first, optimizer, pruner)
        epoch(second, other, again)
    assert again.epoch == pruner.epoch == epochs + 2
    assert again.plan.to_json() == pruner.plan.to_json()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("how", ["channels last", "transposed"])
def test_a_fused_optimizer_goes_on_alike(tmp_path, how):
    """It takes parameters and state in their order in memory, so that both must have one."""

    def begun():
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 3)]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
        if how == "transposed":
            model[6].weight = nn.Parameter(model[6].weight.detach().t().contiguous().t())
        else:
            model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), 0.01, fused=True)
        return model, optimizer, reprune.Pruner(model, optimizer, X, sparsity=0.5, interval=1, until=3)

    first, second = begun(), begun()
    for _ in range(2):
        epoch(*first)
    reprune.save_training(tmp_path / "file", *first)
    reprune.load_training(tmp_path / "file", *second)
    for _ in range(2):
        epoch(*first)
        epoch(*second)
        assert all(
            torch.equal(a, b) for a, b in zip(first[0].parameters(), second[0].parameters(), strict=True)
        )


def test_errors_change_nothing(tmp_path):
    path = tmp_path / "training.safetensors"
    model, optimizer, pruner = start()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
    epoch(model, optimizer, pruner)
    reprune.save_training(path, model, optimizer, pruner, {"scheduler": scheduler})
    raw = path.read_bytes()

    other, other_optimizer, fresh = start(seed=1)
    fresh_scheduler = torch.optim.lr_scheduler.MultiStepLR(other_optimizer, [2, 3])
    groups = torch.optim.AdamW(
        [{"params": list(other.parameters())[:3]}, {"params": list(other.parameters())[3:]}]
    )
    before = {name: value.clone() for name, value in other.state_dict().items()}

    wide = small_resnet(inner=20)
    wide_optimizer = torch.optim.AdamW(wide.parameters())
    wide_pruner = reprune.Pruner(wide, wide_optimizer, X, sparsity=0.5, interval=1, until=3)
    longer = reprune.Pruner(other, other_optimizer, X, sparsity=0.5, interval=1, until=4)
    mine = {"scheduler": fresh_scheduler}
    cases = [
        ((other, other_optimizer, fresh), "others: .* has scheduler, given are none"),
        ((other, groups, fresh, mine), "optimizer: .* has groups of"),
        ((wide, wide_optimizer, wide_pruner, mine), "state: it is of another model"),
        ((other, other_optimizer, longer, mine), "state: it is of a pruner with until=3, this one has 4"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message):
            reprune.load_training(path, *arguments)
    for write, message in [
        (lambda: path.write_bytes(raw[: len(raw) // 2]), "one that is damaged or no safetensors file"),
        (lambda: reprune.save(other, path), "a safetensors file of another kind"),
        (lambda: save_file({"x": X}, path, metadata={"reprune_training": "{"}), "header is damaged"),
        (
            lambda: save_file({"x": X}, path, metadata={"reprune_training": '{"format": 2}'}),
            "reads trainings of format 1",
        ),
    ]:
        write()
        with pytest.raises(ValueError, match=message):
            reprune.load_training(path, other, other_optimizer, fresh, mine)
    with pytest.raises(FileNotFoundError, match="no such file"):
        reprune.load_training(tmp_path / "none", other, other_optimizer, fresh)
    assert fresh.epoch == len(fresh.history) == 0
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())

    path.write_bytes(raw)
    reprune.load_training(path, other, other_optimizer, fresh, mine)
    assert str(other) == str(model)
    with pytest.raises(TypeError, match=r"others\['x'\]: expected something with state_dict"):
        reprune.save_training(path, model, optimizer, pruner, {"x": 3})
    assert path.read_bytes() == raw


def test_codec():
    values = {
        "a": [1, 2.5, True, None, "x", float("inf")],
        (1, "b"): (torch.arange(3), {"c": torch.tensor(2.0)}),
        "counter": Counter({3: 1, 5: 2}),
        "array": np.array([1, 2**32 - 1], dtype=np.uint32),
        "scalar": np.float32(0.1),
    }
    tensors = []
    text = json.dumps(encode(values, tensors, "state"))
    again = decode(json.loads(text), tensors)
    assert list(again) == list(values)
    assert again["a"] == values["a"]
    assert isinstance(again["counter"], Counter)
    assert again["counter"] == values["counter"]
    assert torch.equal(again[1, "b"][0], torch.arange(3))
    assert again["array"].dtype == np.uint32
    assert again["scalar"] == float(np.float32(0.1))
    with pytest.raises(ValueError, match=r"state\['x'\]\[1\]: a function cannot be written"):
        encode({"x": [0, lambda: 0]}, [], "state")
