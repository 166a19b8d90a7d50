"""Which layers a graph is about: Linear layers, wide groups, convolutions of one and three dimensions."""

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from reprune.graph import build_graph
from tests.helpers.masking import exact, randomize


class Mixed(nn.Module):
    """A convolution, a gate whose Linear layer shares its channels, and a feed-forward block."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 3)
        self.bn = nn.BatchNorm2d(12)
        self.gate = nn.Linear(12, 12)
        self.project = nn.Linear(12, 10)
        self.norm = nn.LayerNorm(10)
        self.up = nn.Linear(10, 24)
        self.down = nn.Linear(24, 10)
        self.head = nn.Linear(10, 4)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        x = self.project(x.flatten(2).transpose(1, 2))  # [N, H * W, 10]
        x = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        return self.head(x.mean(1))


GROUPS = {
    "conv": [["conv"]],
    "linear": [["down", "project"], ["up"]],
    "all": [["conv", "gate"], ["down", "project"], ["up"]],
}


@pytest.mark.parametrize("layers", GROUPS)
def test_layers(layers):
    model = randomize(Mixed().double()).eval()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    graph = exact(model, x, seeds=range(3), layers=layers)
    assert [sorted(p.name for p in group.producers) for group in graph.groups] == GROUPS[layers]
    if layers == "linear":
        assert graph.skipped["gate"] == "shares its channels with a convolution; layers='all' prunes them"
    if layers != "conv":
        assert graph.skipped["head"] == "is an output of the model"


def test_linear_layers_are_selected_as_kernels_of_one_number():
    model = randomize(Mixed()).eval()
    x = torch.randn(2, 3, 6, 6)
    small, plan = reprune.prune(model, x, keep={"up": 10}, layers="linear", rule="uniform")
    selection = reprune.select_filters(model.up.weight.detach()[:, :, None], 10, name="up")
    assert plan.keep["up"].tolist() == selection.keep.tolist()
    assert (small.up.out_features, small.down.in_features) == (10, 10)
    assert small.up.weight.equal(model.up.weight[selection.keep])


def test_a_model_without_such_layers():
    with pytest.raises(ValueError, match="expected a network with Linear layers, found none"):
        reprune.make_plan(nn.Conv2d(3, 4, 1), torch.randn(1, 3, 4, 4), sparsity=0.5, layers="linear")
    with pytest.raises(ValueError, match="layers: expected one of 'conv', 'linear', 'all'; got 'convs'"):
        reprune.make_plan(nn.Conv2d(3, 4, 1), torch.randn(1, 3, 4, 4), sparsity=0.5, layers="convs")


def grouped(dims, groups, width, transposed=False):
    """1x1, grouped, 1x1 in 1, 2 or 3 dimensions."""
    plain = getattr(nn, f"Conv{dims}d")
    middle = getattr(nn, f"ConvTranspose{dims}d" if transposed else f"Conv{dims}d")
    inner = groups * width
    model = nn.Sequential(
        plain(3, inner, 1), nn.ReLU(), middle(inner, inner, 3, groups=groups), nn.ReLU(), plain(inner, 4, 1)
    )
    return randomize(model.double()).eval(), torch.randn(2, 3, *[6] * dims, dtype=torch.float64)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_few_wide_groups_lose_places(dims, transposed):
    """Two groups of eight channels: each loses the same places, and both stay."""
    model, x = grouped(dims, 2, 8, transposed)
    graph = exact(model, x, seeds=range(3))
    (group,) = graph.groups
    assert group.atoms.size == 8
    assert [p.rows.shape for p in group.producers] == [(8, 2), (8, 2)]
    small, plan = reprune.prune(model, x, sparsity=0.5, rule="uniform")
    assert small[2].groups == 2
    assert small[2].in_channels == small[2].out_channels == 8
    kept = plan.keep["0"]
    assert np.array_equal(kept[:4] + 8, kept[4:])
    small(x)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_many_narrow_groups_go_whole(dims, transposed):
    model, x = grouped(dims, 6, 2, transposed)
    (group,) = exact(model, x, seeds=range(3)).groups
    assert group.atoms.size == 6
    small, _ = reprune.prune(model, x, sparsity=0.5, rule="uniform")
    assert small[2].groups == 3
    assert small[2].in_channels == small[2].out_channels == 6


def test_depthwise_with_a_multiplier():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, groups=6), nn.Conv2d(12, 4, 1)).double()
    graph = exact(randomize(model), torch.randn(2, 3, 6, 6, dtype=torch.float64), seeds=range(3))
    assert graph.groups[0].atoms.size == 6


@pytest.mark.parametrize("layers", ["linear", "all"])
def test_tied_linear_layers_stay_tied(layers):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.head(torch.relu(self.b(torch.relu(self.a(x)))))

    graph = build_graph(Tied(), torch.randn(2, 6), layers=layers)
    assert graph.groups == ()  # its columns meet the input
    assert "a" in graph.skipped


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_number_is_added_to_a_matrix_product(shape):
    """It is no channel, and need not have dimensions."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 2)
            self.shift = nn.Parameter(torch.randn(shape))

        def forward(self, x):
            return self.head(torch.relu(torch.addmm(self.shift, self.a(x), self.b.weight.T)))

    x = torch.randn(3, 6, dtype=torch.float64)
    graph = exact(randomize(Model().double()), x, seeds=range(2), layers="linear")
    assert [group.name for group in graph.groups] == ["a", "b"]
