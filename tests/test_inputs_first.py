"""Linear layers whose weight has inputs first, as transformers' GPT-2 has them, are pruned as others are."""

import pytest
import torch
from torch import nn

import reprune
from tests.helpers.attentions import TOKENS, Conv1D, Turned
from tests.helpers.masking import exact

UNIFORM = {"layers": "linear", "rule": "uniform"}


def network():
    torch.manual_seed(0)
    return nn.Sequential(Turned(), nn.ReLU(), Conv1D(32, 16), nn.GELU(), Conv1D(16, 32), nn.Linear(16, 3))


def test_they_lose_outputs_and_inputs():
    graph = exact(network().double().eval(), TOKENS, seeds=range(3), layers="linear")
    assert graph.skipped == {"5": "is an output of the model"}
    small, plan = reprune.prune(network(), TOKENS.float(), sparsity=0.5, **UNIFORM)
    assert plan.channels == {"0.c_attn": 48, "0.c_proj": 16, "2": 32, "4": 16, "5": 3}
    assert (small[2].nx, small[2].nf, tuple(small[2].weight.shape)) == (8, 16, (8, 16))
    assert (small[4].nx, small[4].nf, tuple(small[4].weight.shape)) == (16, 8, (16, 8))


def test_what_is_left_is_compensated():
    model, images = network(), torch.randn(64, 5, 16, generator=torch.Generator().manual_seed(1))
    how = {"sparsity": 0.5, **UNIFORM}

    def error(small):
        with torch.no_grad():
            return float(((small(images) - model(images)) ** 2).mean())

    plain, _ = reprune.prune(model, TOKENS.float(), **how)
    fitted, _ = reprune.prune(model, TOKENS.float(), calibrate=images, **how)
    assert error(fitted) < 0.5 * error(plain)


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_they_are_pruned_and_grow_back_in_training(mode):
    model, x = network(), TOKENS.float()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    pruner = reprune.Pruner(
        model, optimizer, x, sparsity=0.5, interval=1, until=3, regrow=0.5, mode=mode, **UNIFORM
    )
    for _ in range(4):
        model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()
    pruner.finalize()
    assert {name: len(kept) for name, kept in pruner.plan.keep.items()} == {
        "0.c_attn": 24,
        "0.c_proj": 8,
        "2": 16,
        "4": 8,
    }
    assert model[2].weight.shape == (8, 16)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_they_lose_in_training_what_linear_layers_would():
    def trained(turned):
        torch.manual_seed(0)
        first, second, last = (
            Conv1D(o, i) if turned else nn.Linear(i, o) for i, o in ((16, 48), (48, 40), (40, 3))
        )
        model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), last)
        for k, layer in enumerate((first, second, last)):
            weight = torch.randn(layer.weight.T.shape if turned else layer.weight.shape,
                                 generator=torch.Generator().manual_seed(k))  # fmt: skip
            layer.weight.data = weight.T.contiguous() if turned else weight
            layer.bias.data.zero_()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        how = {"sparsity": 0.5, "interval": 1, "until": 5, "regrow": 0.3, **UNIFORM}
        pruner = reprune.Pruner(model, optimizer, TOKENS.float(), **how)
        for _ in range(6):
            pruner.step()
        pruner.finalize()
        return {name: list(kept) for name, kept in pruner.plan.keep.items()}

    assert trained(turned=True) == trained(turned=False)


def test_a_layer_that_has_the_weight_of_another_says_so():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.inner, self.norm = nn.Embedding(20, 16), network()[2:5], nn.LayerNorm(16)
            self.head = nn.Linear(16, 20, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x):
            y = self.words(x)
            return self.head(self.norm(y + self.inner(y)))

    plan = reprune.make_plan(Tied(), torch.arange(5)[None], sparsity=0.5, **UNIFORM)
    assert plan.skipped["head"] == "has the weight of words, and keeps its channels as that does"
