"""Of two channels or heads one is left: no label shows where it goes, but the sizes of tensors do."""

import pytest
import torch
from torch import nn

import reprune
from tests.helpers.masking import difference, masked, randomize


class Attention(nn.Module):
    """One whose number of heads no table has."""

    def __init__(self, heads, name):
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 3 * 4 * heads), nn.Linear(4 * heads, 8)
        self.name = name
        setattr(self, name, heads)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, getattr(self, self.name), -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * 0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("name, left", [("ways", None), ("num_heads", 12)])
@pytest.mark.parametrize("heads", [2, 3])
def test_one_head_is_not_taken_for_several_of_fewer_numbers(name, left, heads):
    model = randomize(nn.Sequential(nn.Linear(8, 8), Attention(heads, name))).double().eval()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    settings = {"sparsity": 0.7, "rule": "uniform", "scope": "all", "layers": "linear"}
    plan = reprune.make_plan(model, x, **settings)
    expected = masked(model, plan.slices)(x)
    reprune.apply(plan, model)
    assert difference(model(x), expected) < 1e-9
    assert model[1].qkv.out_features == (left or 12 * heads)
    if left is None:
        assert "the module around does not follow" in plan.skipped["1.qkv"]


class Split(nn.Module):
    """A view by a count that is written out, which one channel fits as well."""

    def __init__(self, between):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 4, 1)
        self.between = between

    def forward(self, x):
        y = self.a(x)
        return self.b(self.between(y.reshape(len(y), 2, -1)).reshape(len(y), -1, *x.shape[2:]))


@pytest.mark.parametrize("between", [lambda y: y.softmax(-1), lambda y: y.flip(1)], ids=["softmax", "flip"])
def test_one_channel_is_not_taken_for_two_halves(between):
    with pytest.raises(ValueError, match="a cannot be pruned: the model hard-codes channel"):
        reprune.make_plan(Split(between), torch.randn(2, 3, 6, 6), keep={"a": 1})


class ByEinsum(nn.Module):
    """An attention by einsum, which permutes otherwise where there is one head."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.proj = nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = (y.view(*y.shape[:2], -1, 4) for y in (self.q(x), self.k(x), self.v(x)))
        weights = torch.einsum("bnhd,bmhd->bhnm", q, k).softmax(-1)
        return self.proj(torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(2))


def test_one_head_of_two_is_left_where_products_run_otherwise_for_one():
    model = randomize(nn.Sequential(nn.Linear(8, 8), ByEinsum())).double().eval()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    small, plan = reprune.prune(model, x, sparsity=0.5, rule="uniform", scope="all", layers="linear")
    assert small[1].q.out_features == 4
    assert difference(small(x), masked(model, plan.slices)(x)) < 1e-9
