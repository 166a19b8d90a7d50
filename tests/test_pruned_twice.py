"""Networks that are pruned again: their files load, and groups of channels that left can come back."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import reprune
from tests.helpers.masking import difference, masked, randomize

X = torch.randn(3, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Tokens(nn.Module):
    """A residual stream of which convolutions and Linear layers make a part each."""

    def __init__(self):
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1)
        self.up, self.down, self.head = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 4)

    def forward(self, x):
        y = self.stem(x)
        y = (y + self.conv(y)).flatten(2).transpose(1, 2)
        return self.head((y + self.down(self.up(y).relu())).mean(1))


def grouped(norm=None, groups=4):
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, padding=1),
        nn.Identity() if norm is None else norm,
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, padding=1, groups=groups),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 5, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def normalised(groups):
    """The width of its groups has to stay, so whole groups leave, few and wide as they are."""
    model = grouped(groups=groups)
    parametrizations.weight_norm(model[3])
    return model


def plain(norm):
    return nn.Sequential(nn.Conv2d(3, 24, 3), norm, nn.ReLU(), nn.Conv2d(24, 5, 1), nn.Flatten())


def built(make):
    torch.manual_seed(0)
    return randomize(make()).double().eval()


@pytest.mark.parametrize("order", [("all", "conv"), ("conv", "all")], ids="-".join)
def test_plans_of_other_layers_that_cut_the_same_channels(order, tmp_path):
    model = built(Tokens)
    for layers in order:
        settings = {"sparsity": 0.4, "rule": "uniform", "scope": "all", "layers": layers}
        reprune.apply(reprune.make_plan(model, X, **settings), model)
    reprune.save(model, tmp_path / "file")
    plan = reprune.read_plan(tmp_path / "file")
    left = plan.slices["down.weight"][0].tolist()
    assert left == plan.keep["down"].tolist() == plan.keep["stem"].tolist() == plan.keep["conv"].tolist()
    assert plan.channels["down"] == plan.channels["stem"] == 16
    assert torch.equal(reprune.load(tmp_path / "file", built(Tokens))(X), model(X))


NETWORKS = {
    "groups of six": lambda: grouped(groups=4),
    "groups of two": lambda: grouped(groups=12),
    "groups of six under a weight norm": lambda: normalised(4),
    "groups of four under a weight norm": lambda: normalised(6),
    "groups of four and a norm": lambda: grouped(nn.GroupNorm(6, 24), 6),
    "norm": lambda: plain(nn.GroupNorm(4, 24)),
    "norm without tensors": lambda: plain(nn.GroupNorm(4, 24, affine=False)),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_groups_that_leave_until_one_is_left(make, tmp_path):
    model = built(make)
    for times in range(4):
        try:
            plan = reprune.make_plan(model, X, sparsity=0.5, rule="uniform", scope="all")
        except ValueError:  # one group is left, and goes as a whole or not at all
            assert times > 0
            break
        expected = masked(model, plan.slices)(X)
        reprune.apply(plan, model)
        assert difference(model(X), expected) < 1e-9
        reprune.save(model, tmp_path / "file")
        other = reprune.load(tmp_path / "file", built(make))
        assert str(other) == str(model)
        assert torch.equal(other(X), model(X))


@pytest.mark.parametrize("make", [lambda: grouped(groups=6), *list(NETWORKS.values())[4:]])
def test_groups_come_back_to_the_last_one(make, tmp_path):
    """Layers have as many groups as their channels say, after every event."""
    model = built(make)
    width = {k: m.num_channels // m.num_groups for k, m in enumerate(model) if isinstance(m, nn.GroupNorm)}
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    settings = {"sparsity": 0.9, "rule": "uniform", "regrow": 0.6, "interval": 1, "until": 5}
    pruner = reprune.Pruner(model, optimizer, X, **settings)
    fewest = []
    for _ in range(6):
        optimizer.zero_grad()
        model.train()(X).square().mean().backward()
        optimizer.step()
        pruner.step()
        for k, channels in width.items():
            assert model[k].num_groups * channels == model[k].num_channels == model[0].out_channels
        fewest.append(model[0].out_channels)
    assert fewest[0] > min(fewest)
    reprune.save(model, tmp_path / "file")
    assert torch.equal(reprune.load(tmp_path / "file", built(make)).eval()(X), model.eval()(X))


def test_a_layer_that_the_second_plan_leaves_whole(tmp_path):
    """Its weight was cut by the first along its inputs only, which are not its outputs."""
    sizes = [3, 8, 8, 8, 4]
    model = built(lambda: nn.Sequential(*(nn.Conv2d(i, o, 1) for i, o in itertools.pairwise(sizes))))
    for counts in ({"0": 5}, {"1": 8, "2": 5}, {"1": 6}):
        plan = reprune.make_plan(model, X, keep=counts)
        assert {name: kept.size for name, kept in plan.keep.items()} == counts
        reprune.apply(plan, model)
    reprune.save(model, tmp_path / "file")
    found = reprune.read_plan(tmp_path / "file")
    assert found.keep.keys() <= {"0", "1", "2"}
    assert all(kept.tolist() == found.slices[f"{name}.bias"][0].tolist() for name, kept in found.keep.items())
