"""The graph: random networks, and toys built to fool a tracer."""

import copy

import pytest
import torch
from torch import nn
from torchvision.ops import roi_align

from reprune.graph import build_graph
from reprune.modules.slicing import replace_tensors, slice_model
from tests.helpers.masking import Toy, exact, randomize
from tests.helpers.random_networks import RandomNetwork


@pytest.mark.parametrize("batch", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in range(1, 8))])
def test_random_networks(batch, monkeypatch):
    """Keep-sets down to a single channel of a group; every other network is traced without values."""
    pruned = 0
    for seed in range(batch * 20, batch * 20 + 20):
        torch.manual_seed(seed)
        model = randomize(RandomNetwork(seed).double(), seed).eval()
        x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
        layers = ("conv", "linear", "all")[seed % 3]
        monkeypatch.setattr("reprune.graph.traced.LARGE_BYTES", 0 if seed % 2 else 2**60)
        graph = exact(model, x, seeds=[seed], layers=layers)
        kinds = {"conv": nn.modules.conv._ConvNd, "linear": nn.Linear}
        kinds = kinds.get(layers, tuple(kinds.values()))
        named = {n for n, m in model.named_modules() if isinstance(m, kinds)}
        grouped = {p.name for group in graph.groups for p in group.producers}
        assert grouped | graph.skipped.keys() == named
        pruned += len(grouped)
    assert pruned > 20  # one and more a network: the test is not empty


class ConstantSplit(Toy):
    def between(self, x):
        return torch.cat(torch.split(x, [5, 3], dim=1)[::-1], dim=1)


class ConstantSlice(Toy):
    def __init__(self):
        super().__init__(into=4)

    def between(self, x):
        return x[:, :4]


class ConstantPermutation(Toy):
    def __init__(self):
        super().__init__()
        self.register_buffer("order", torch.tensor([3, 1, 4, 0, 5, 2, 7, 6]))

    def between(self, x):
        return x[:, self.order]


class Roll(Toy):
    def between(self, x):
        return torch.roll(x, 3, dims=1) * x


class RollByHalf(Toy):
    """Exact only while there are eight channels: then i and i + 4 are pairs."""

    def between(self, x):
        return torch.roll(x, 4, dims=1) * x


class RollAndChoice(RollByHalf):
    """The same where the data decide how much there is: other calls and edges have no counterparts."""

    def forward(self, x):
        y = super().forward(x)
        return y[y > -1e9]


class Repeated(Toy):
    """In training, as many operations as there are channels, after all others."""

    def forward(self, x):
        x = self.a(x)
        y = self.c(torch.relu(self.b(x))).mean((2, 3))
        for _ in range(x.shape[1] // 2 if self.training else 0):
            y = y * 0.5
        return y


class ScaleBySize(Toy):
    def between(self, x):
        return x * x.shape[1] ** -0.5


class ScaleByCount(Toy):
    def between(self, x):
        return x / torch.tensor(float(x[0].numel()))


class BranchOnWidth(Toy):
    def between(self, x):
        return torch.relu(x) if x.shape[1] >= 8 else torch.sigmoid(x)


class WrittenByNumber(Toy):
    def between(self, x):
        gate = torch.ones_like(x)
        gate[:, 0] = 0
        return x * gate


class WrittenByIndex(Toy):
    """Channels by a list of numbers."""

    def between(self, x):
        gate = torch.ones_like(x)
        gate[:, torch.tensor([0, 2])] = 0
        return x * gate


class CountedPositions(Toy):
    def between(self, x):
        return x + torch.arange(x.shape[1], dtype=x.dtype).view(1, -1, 1, 1)


class ChannelSoftmax(Toy):
    def between(self, x):
        return torch.softmax(x, dim=1)


class ChannelMean(Toy):
    def between(self, x):
        return x - x.mean(1, keepdim=True)


class ChannelNorm(Toy):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)

    def between(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FixedGroups(Toy):
    def between(self, x):
        return nn.functional.group_norm(x, 2)


class HiddenConstant(Toy):
    def __init__(self):
        super().__init__()
        self.constant = torch.randn(1, 8, 1, 1, dtype=torch.float64)

    def between(self, x):
        return x + self.constant


class Attention(Toy):
    def between(self, x):
        q = x.flatten(2)
        return (q.transpose(1, 2) @ q).softmax(-1).matmul(q.transpose(1, 2)).transpose(1, 2).view_as(x)


class Detached(Toy):
    def between(self, x):
        return torch.from_numpy(x.detach().numpy()[:, ::-1].copy())


FOOLING = [
    ConstantSplit,
    ConstantSlice,
    ConstantPermutation,
    Roll,
    RollByHalf,
    RollAndChoice,
    Repeated,
    ScaleBySize,
    ScaleByCount,
    BranchOnWidth,
    WrittenByNumber,
    WrittenByIndex,
    CountedPositions,
    ChannelSoftmax,
    ChannelMean,
    HiddenConstant,
    Attention,
    Detached,
]


@pytest.mark.parametrize("toy", FOOLING)
def test_certificate_rejects_adversarial_models(toy):
    """What depends on the number or the place of channels keeps them; the rest is still pruned."""
    torch.manual_seed(0)
    model = toy().double().eval()
    graph = exact(model, torch.randn(2, 3, 6, 6, dtype=torch.float64), seeds=range(3))
    assert graph.skipped["a"]
    assert [group.name for group in graph.groups] == ["b"]


class NothingFound(Toy):
    """No box was found, and goes through a BatchNorm."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def between(self, x):
        chosen = self.norm(roi_align(x, x.new_zeros(0, 5), 6))
        return x + chosen.sum(0)


def test_batch_norm_of_nothing():
    """PyTorch computes it from the first channel's numbers; it must follow the channels all the same."""
    torch.manual_seed(0)
    model = NothingFound().double().eval()
    graph = exact(model, torch.randn(2, 3, 6, 6, dtype=torch.float64), seeds=range(3))
    kept = graph.everything()
    kept[next(group for group in graph.groups if group.name == "a").atoms[:3]] = False
    slices = graph.traced.slices(kept)
    assert [len(slices[name][0]) for name in ("a.weight", "norm.weight", "norm.running_var")] == [5, 5, 5]


def test_groups_of_a_group_norm():
    """Two fixed groups of four channels: groups cannot leave one by one without changing the norm's width."""
    torch.manual_seed(0)
    graph = exact(FixedGroups().double().eval(), torch.randn(2, 3, 6, 6, dtype=torch.float64), seeds=range(3))
    assert "a" in graph.skipped


class Chunked(Toy):
    def __init__(self):
        super().__init__(into=4)

    def between(self, x):
        first, second = x.chunk(2, dim=1)
        return first * torch.sigmoid(second)


class Tied(nn.Module):
    """One weight in two places."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 8, 3, padding=1)
        self.c.weight = self.b.weight
        self.d = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.d(self.c(torch.relu(self.b(torch.relu(self.a(x)))))).mean((2, 3))


class Normalised(Toy):
    def __init__(self):
        super().__init__()
        self.a = nn.utils.parametrizations.weight_norm(self.a)


class Unsqueezed(Toy):
    """Blank tensors take the labels they meet; expanded ones fit any size."""

    def between(self, x):
        scale = torch.full((1, 1, 1, 1), 0.5, dtype=x.dtype).expand_as(x)
        return x * scale + torch.zeros_like(x) + x.new_ones(x.shape)


class Sorted(Toy):
    """Images are written one by one into a blank batch, as those of a detector's levels are."""

    def between(self, x):
        blank, first = torch.zeros_like(x), torch.arange(len(x)) == 0
        blank[torch.where(first)[0]] = x[first] * 2
        blank[torch.where(~first)[0]] = x[~first].relu()
        return blank


@pytest.mark.parametrize("toy", [Toy, Chunked, Tied, Normalised, ChannelNorm, Unsqueezed, Sorted])
def test_what_can_be_pruned_is(toy):
    torch.manual_seed(0)
    model = toy().double().eval()
    graph = exact(model, torch.randn(2, 3, 6, 6, dtype=torch.float64), seeds=range(4))
    assert graph.groups[0].name == "a"
    assert "a" not in graph.skipped


def test_tied_weights_stay_tied():
    model = Tied().eval()
    x = torch.randn(1, 3, 6, 6)
    graph = build_graph(model, x)
    kept = graph.everything()
    kept[graph.groups[0].atoms[:3]] = False
    replace_tensors(model, slice_model(model, graph.traced.slices(kept)))
    assert model.c.weight is model.b.weight
    assert model.b.weight.shape == (5, 5, 3, 3)
    model(x)


def test_the_model_is_left_as_it_was():
    model = randomize(RandomNetwork(3), 3)
    model.train()
    model.blocks[0].eval()
    modes = [m.training for m in model.modules()]
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    build_graph(model, torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def test_inputs_of_any_form():
    class Two(Toy):
        def forward(self, x, gain=None):
            out = super().forward(x)
            return {"out": out if gain is None else out * gain}

    model = Two().eval()
    x = torch.randn(1, 3, 6, 6)
    for example in (x, (x, torch.ones(1)), {"x": x, "gain": torch.ones(1)}):
        assert [group.name for group in build_graph(model, example).groups] == ["a", "b"]
    with pytest.raises(TypeError, match="example_inputs: expected a tensor, a tuple"):
        build_graph(model, 3)


def test_pooling_a_channels_last_tensor_to_one_position():
    """It changes strides in place, with the number of channels among its arguments; nothing depends on it."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
    )
    model = model.double().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64).to(memory_format=torch.channels_last)
    assert len(exact(model, x, seeds=(0, 1)).groups) == 1
