"""Errors of the pruner: clear, and nothing lost."""

import copy

import pytest
import torch
from torch import nn

from tests.helpers.loops import one_step, start
from tests.helpers.networks import small_resnet


def test_state_that_cannot_be_cut():
    model = small_resnet()
    optimizer = torch.optim.Adafactor(model.parameters(), lr=0.01)
    _, _, pruner = start("shrink", optimizer, model)
    one_step(model, optimizer)
    before = str(model)
    with pytest.raises(ValueError, match=r"state 'row_var' of .* has shape"):
        pruner.step()
    assert (str(model), pruner.epoch, len(pruner.history)) == (before, 0, 0)
    _, _, pruner = start("mask", optimizer, model)
    assert pruner.step()


def test_the_final_channels_are_certified(monkeypatch):
    """What the probe at the start did not see is seen before the structure becomes final."""

    class RollByHalf(nn.Sequential):
        def forward(self, x):
            for layer in self[:2]:
                x = layer(x)
            return self[2](torch.roll(x, 4, dims=1) * x).mean((2, 3))

    monkeypatch.setattr("reprune.graph.ChannelGraph.probe", lambda graph: graph.everything())
    torch.manual_seed(0)
    model = RollByHalf(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 5, 3))
    _, optimizer, pruner = start(model=model, until=1, rule="uniform", sparsity=0.25)
    one_step(model, optimizer)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"would not be the network that was traced .* nothing was changed"):
        pruner.step()
    assert (pruner.epoch, len(pruner.history)) == (0, 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    one_step(model, optimizer)


def test_errors_at_the_start():
    model = small_resnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cases = [
        ({"until": 0}, "until: expected a number of epochs"),
        ({"interval": 5, "until": 4}, "until: expected at least interval=5, or no event ever comes; got 4"),
        ({"regrow": 1.5}, "regrow: expected a number from 0 to 1; got 1.5"),
        ({"mode": "both"}, "mode: expected one of 'shrink', 'mask'; got 'both'"),
        ({"flops": 0.5}, "expected exactly one target .* got sparsity, flops"),
        ({"sparsity": None}, "expected exactly one target .* got none"),
        ({"copies": [small_resnet(inner=20)]}, "copies: number 0 has other tensors"),
        ({"round_to": 0}, "round_to: expected an integer of at least 1"),
    ]
    for change, message in cases:
        with pytest.raises(ValueError, match=message):
            start(model=model, optimizer=optimizer, **change)
    other = torch.optim.SGD(small_resnet().parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"optimizer: expected one that holds .* stem.0.weight is not"):
        start(model=model, optimizer=other)


def test_errors_during_training_change_nothing():
    model, optimizer, pruner = start()
    with pytest.raises(ValueError, match="finalize: no event came in 0 epochs"):
        pruner.finalize()
    one_step(model, optimizer)
    pruner.step()
    before = copy.deepcopy(model.state_dict())

    mine = optimizer.param_groups[0]["params"]
    optimizer.param_groups[0]["params"] = mine[1:]
    with pytest.raises(ValueError, match=r"optimizer: expected one that holds .* stem.0.weight is not"):
        pruner.step()
    optimizer.param_groups[0]["params"] = mine

    head, model.head = model.head, nn.Linear(model.head.in_features + 1, 5)
    with pytest.raises(ValueError, match=r"changed outside the pruner: head.weight should have shape"):
        pruner.step()
    model.head = head
    model.extra = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"extra.bias should have shape none: it was not there"):
        pruner.step()
    del model.extra

    weight = model.blocks[0].conv1.weight
    kept = weight.detach().clone()
    weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"the weight of blocks.0.conv1 has NaN"):
        pruner.step()
    weight.data.copy_(kept)
    assert (pruner.epoch, len(pruner.history)) == (1, 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert pruner.step()
    with pytest.warns(UserWarning, match=r"ended after 2 epochs, before the last event \(epoch 4\)"):
        plan = pruner.finalize()
    assert not any(pruner.history[-1].regrown.values())
    assert pruner.finalize().to_json() == plan.to_json()
    assert not pruner.step()


def test_a_copy_that_was_changed():
    model, ema = small_resnet(), small_resnet()
    _, _, pruner = start(model=model, copies=[ema])
    ema.head = nn.Linear(3, 5)
    with pytest.raises(ValueError, match=r"a copy of it was changed outside the pruner: head.weight"):
        pruner.step()


def test_masked_channels_that_are_no_longer_zero():
    model, optimizer, pruner = start("mask")
    one_step(model, optimizer)
    pruner.step()
    model.load_state_dict(small_resnet(seed=1).state_dict())
    with pytest.raises(ValueError, match=r"dropped channels of .* are not zero any more"):
        pruner.step()


def test_shrink_mode_and_a_wrapped_model():
    class DistributedDataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    wrapped = DistributedDataParallel(small_resnet())
    with pytest.raises(ValueError, match=r"pass the module inside DistributedDataParallel"):
        start("shrink", model=wrapped)
    start("mask", model=wrapped)
