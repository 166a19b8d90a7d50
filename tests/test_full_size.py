"""The state of a pruned module at full size, and modules that take the size of a state."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import reprune
from reprune.pruner.full_size import FullSize

X = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def build(before=None):
    """A network, or one that a plan had pruned `before`."""
    torch.manual_seed(0)
    net = nn.Sequential(
        *(weight_norm(nn.Conv2d(3, 12, 3)), nn.BatchNorm2d(12), nn.Sigmoid(), nn.Conv2d(12, 8, 1)),
        *(nn.Sigmoid(), nn.Conv2d(8, 4, 1)),
    )
    if before is not None:
        reprune.apply(before, net)
    return net.eval()


@pytest.fixture(scope="module", params=[None, {"0": 8}], ids=["full", "pruned before"])
def trained(request):
    """A pruned network, its state after each epoch, and what it computed then."""
    before = request.param and reprune.make_plan(build(), X, keep=request.param)
    net = build(before)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    pruner = reprune.Pruner(net, optimizer, X, sparsity=0.5, rule="uniform", interval=1, until=3)
    FullSize(pruner.live).attach(net)
    states, outputs = [], []
    for _ in range(4):
        net.train()(X).square().mean().backward()
        optimizer.step()
        pruner.step()
        states.append(copy.deepcopy(net.state_dict()))
        outputs.append(net.eval()(X).detach())
    pruner.finalize()
    return before, net, states, outputs


def test_a_network_of_full_size_computes_the_same(trained):
    before, net, states, outputs = trained
    assert net[0].out_channels == (6 if before is None else 4)
    for state, expected in zip(states, outputs, strict=True):
        fresh = build(before)
        fresh.load_state_dict(state)
        assert torch.allclose(fresh(X), expected, atol=1e-6)


def test_a_pruned_network_takes_the_size_of_a_state(trained, tmp_path):
    before, net, states, outputs = trained
    whole = nn.ModuleDict({"net": copy.deepcopy(net)})
    part = whole["net"]
    sizes = []
    for epoch in (0, 3, 1, 0):
        whole.load_state_dict({f"net.{name}": value for name, value in states[epoch].items()})
        assert torch.allclose(part(X), outputs[epoch], atol=1e-6)
        sizes.append(part[0].out_channels)
        assert {name: t.shape for name, t in whole.state_dict(prefix="x.").items()} == {
            f"x.net.{name}": t.shape for name, t in build(before).state_dict().items()
        }
        reprune.save(part, tmp_path / "small")
        assert torch.equal(reprune.load(tmp_path / "small", build())(X), part(X))
    assert sizes[0] == sizes[3] > sizes[1] == net[0].out_channels
    part.load_state_dict(build(before).state_dict())
    assert str(part) == str(build(before))
    reprune.save(part, tmp_path / "whole")
    assert torch.equal(reprune.load(tmp_path / "whole", build())(X), part(X))


def test_other_states_are_left_alone(trained):
    net = copy.deepcopy(trained[1])
    own = net.state_dict(keep_vars=True)
    assert own["3.weight"] is net[3].weight
    small = {name: value.detach().clone() for name, value in own.items()}
    small["5.bias"].fill_(7)
    net.load_state_dict(small)
    assert net[5].bias.tolist() == [7] * 4
    assert net[0].out_channels == trained[1][0].out_channels
    with pytest.raises(RuntimeError, match=r"size mismatch for 3\.weight"):
        net.load_state_dict(small | {"3.weight": torch.zeros(5, 3, 1, 1)})
