"""Sizes that modules keep follow: shapes of scales, biases for each head, heads of convolutions."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reprune
from reprune.modules.slicing import replace_tensors
from tests.helpers.masking import difference, exact, masked, randomize

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SETTINGS = {"layers": "all", "scope": "all", "rule": "uniform"}


class Scale(nn.Module):
    """As in MetaFormer and its kin: it keeps the shape in which it shows its scale."""

    def __init__(self, dim):
        super().__init__()
        self.shape = (dim, 1, 1)
        self.scale = nn.Parameter(torch.randn(dim))

    def forward(self, x):
        return x * self.scale.view(self.shape)


class Table(nn.Module):
    """As timm's `RelPosBias`: a table with a column for each head."""

    def __init__(self, heads):
        super().__init__()
        self.bias_shape = (9, 9, heads)
        self.relative_position_bias_table = nn.Parameter(torch.randn(25, heads))
        places = torch.arange(81) % 25
        self.register_buffer("relative_position_index", places, persistent=False)

    def forward(self, attn):
        bias = self.relative_position_bias_table[self.relative_position_index]
        return attn + bias.view(self.bias_shape).permute(2, 0, 1).unsqueeze(0)


class Computed(nn.Module):
    """As timm's `RelPosMlp`: the columns are computed by a small network."""

    def __init__(self, heads):
        super().__init__()
        self.num_heads, self.bias_shape = heads, (9, 9, heads)
        self.mlp = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, heads))
        self.register_buffer("places", torch.randn(5, 5, 2), persistent=False)
        self.register_buffer("index", torch.arange(81) % 25, persistent=False)

    def forward(self, attn):
        bias = self.mlp(self.places).view(-1, self.num_heads)[self.index].view(self.bias_shape)
        return attn + bias.permute(2, 0, 1).unsqueeze(0)


class OfImages(nn.Module):
    """As in Visformer and CoAtNet: queries, keys and values of a convolution."""

    def __init__(self, dim, heads, bias):
        super().__init__()
        self.num_heads, self.dim_head = heads, dim // heads
        self.qkv, self.proj = nn.Conv2d(dim, 3 * dim, 1), nn.Conv2d(dim, dim, 1)
        self.bias = bias(heads)

    def forward(self, x):
        b, _, h, w = x.shape
        q, k, v = self.qkv(x).reshape(b, 3, self.num_heads, self.dim_head, -1).unbind(1)
        attn = self.bias(q.transpose(-2, -1) @ k).softmax(dim=-1)
        return self.proj((v @ attn.transpose(-2, -1)).reshape(b, -1, h, w))


class Stream(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 12, 2, 2), nn.GroupNorm(1, 12)
        self.attention, self.scale = OfImages(12, 4, bias), Scale(12)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.patch(x)
        x = x + self.scale(self.attention(self.norm(x)))
        return self.head(F.relu(x).mean((2, 3)))


BIASES = {"table": Table, "computed": Computed, "none": lambda heads: nn.Identity()}


def drawn(bias):
    torch.manual_seed(0)
    return randomize(Stream(BIASES[bias]).double()).eval()


@pytest.mark.parametrize("bias", BIASES)
def test_what_keeps_a_number_of_heads_follows(bias):
    graph = exact(drawn(bias), X, seeds=range(4), layers="all")
    assert "attention.qkv" not in graph.skipped
    assert "patch" not in graph.skipped
    assert [group.atoms.size for group in graph.groups if group.heads] == [4]


@pytest.mark.parametrize("bias", BIASES)
def test_smaller_in_training_and_whole_again(bias, tmp_path):
    model = drawn(bias)
    small, plan = reprune.prune(model, X, sparsity=0.35, **SETTINGS)
    dense = masked(model, plan.slices)
    assert small.scale.shape == (plan.keep["patch"].size, 1, 1)
    for mode in (True, False):
        assert difference(small.train(mode)(X), dense.train(mode)(X)) < 1e-9
    reprune.save(small, tmp_path / "small.safetensors")
    again = reprune.load(tmp_path / "small.safetensors", drawn(bias)).eval()
    assert torch.equal(again(X), small(X))
    whole = copy.deepcopy(small)
    full = dict(model.named_parameters())
    replace_tensors(
        whole,
        {t: nn.Parameter(full[n].detach().clone()) for n, t in whole.named_parameters() if n in plan.slices},
    )
    assert whole.scale.shape == (12, 1, 1)
    assert torch.equal(whole(X), model(X))


@pytest.mark.parametrize("bias", BIASES)
def test_trained_with_regrowth_in_both_modes(bias):
    losses = {}
    for mode in ("mask", "shrink"):
        model = drawn(bias).float().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        pruner = reprune.Pruner(
            model, optimizer, X.float(), flops=0.5, interval=1, until=5, regrow=0.5, mode=mode, **SETTINGS
        )
        losses[mode] = []
        for _ in range(7):
            optimizer.zero_grad()
            loss = model(X.float()).square().mean()
            loss.backward()
            optimizer.step()
            pruner.step()
            losses[mode].append(loss.item())
        pruner.finalize()
        assert model.attention.num_heads < 4
    assert np.allclose(losses["mask"], losses["shrink"], rtol=1e-4)


def test_a_norm_without_tensors_follows_at_every_event():
    """Its number of groups is read as it runs; no tensor tells how many there are."""

    class Grouped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 2, 1)
            self.norm = nn.GroupNorm(4, 12, affine=False)

        def forward(self, x):
            return self.b(self.norm(self.a(x)))

    losses = {}
    for mode in ("mask", "shrink"):
        torch.manual_seed(0)
        model = Grouped()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        pruner = reprune.Pruner(
            model,
            optimizer,
            X.float(),
            sparsity=0.5,
            rule="uniform",
            interval=1,
            until=4,
            regrow=0.1,
            mode=mode,
        )
        losses[mode] = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(X.float()).square().mean()
            loss.backward()
            optimizer.step()
            pruner.step()
            losses[mode].append(loss.item())
        pruner.finalize()
        assert model.norm.num_groups == 2
    assert np.allclose(losses["mask"], losses["shrink"], rtol=1e-4)


class Shifted(nn.Module):
    """As in timm's Swin: to the windows of each image a mask is added that the model holds."""

    def __init__(self):
        super().__init__()
        self.num_heads = 3
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)
        self.register_buffer("mask", torch.randn(4, 9, 9), persistent=False)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        attn = q @ k.transpose(-2, -1)
        attn = attn.view(-1, 4, self.num_heads, n, n) + self.mask.unsqueeze(1).unsqueeze(0)
        x = attn.view(-1, self.num_heads, n, n).softmax(-1) @ v
        return self.proj(x.transpose(1, 2).reshape(b, n, -1))


def test_a_mask_for_each_window_is_no_obstacle():
    torch.manual_seed(0)
    model = nn.Sequential(Shifted(), nn.Linear(12, 3)).double().eval()
    x = torch.randn(8, 9, 12, dtype=torch.float64)
    graph = exact(model, x, seeds=range(3), layers="all")
    assert [group.atoms.size for group in graph.groups if group.heads] == [3]
