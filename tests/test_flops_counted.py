"""FLOPs are the same however the graph was traced: with values, without, and by which kernel of attention."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from reprune.graph import build_graph

TOKENS = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0))
PRODUCTS = 2 * 2 * 4 * 16 * 16 * 8 * 2  # two of them, of 2 x 4 heads of 16 tokens of 8 numbers


class Attention(nn.Module):
    def __init__(self, **how):
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.out, self.how = nn.Linear(32, 96), nn.Linear(32, 32), how

    def forward(self, x):
        q, k, v = (y.unflatten(2, (4, 8)).transpose(1, 2) for y in self.qkv(x).chunk(3, 2))
        mask = {"attn_mask": torch.zeros(16, 16).bool().logical_not()} if "mask" in self.how else self.how
        y = F.scaled_dot_product_attention(q, k, v, **mask)
        return self.out(y.transpose(1, 2).flatten(2))


class Products(nn.Module):
    """The ways to write a matrix product."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.bare = nn.Linear(32, 16), nn.Linear(16, 32, bias=False)
        self.weight = nn.Parameter(torch.randn(32, 32))

    def forward(self, x):
        x = torch.einsum("bnc,oc->bno", self.bare(self.linear(x)), self.weight) @ self.weight
        return torch.bmm(x, x.mT) + torch.addmm(x[0, :16, 0], x[0], x[1].T)


def counted(model, example, large, monkeypatch):
    monkeypatch.setattr("reprune.graph.traced.LARGE_BYTES", 0 if large else 2**60)
    return build_graph(model, example, layers="all").traced.flops.full


def by_torch(model, example):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(example)
    return counter.get_total_flops()


@pytest.mark.parametrize("how", [{}, {"is_causal": True}, {"scale": 0.5}, {"mask": True}])
@pytest.mark.parametrize("training", [False, True])
def test_attention(how, training, monkeypatch):
    model = Attention(**how).train(training)
    linear = 2 * 2 * 16 * 32 * (96 + 32)
    assert counted(model, TOKENS, False, monkeypatch) == linear + PRODUCTS
    assert counted(model, TOKENS, True, monkeypatch) == linear + PRODUCTS


def test_a_layer_of_a_transformer(monkeypatch):
    """Its fast path is one kernel that nothing counts."""
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0).eval()
    expected = 2 * 2 * 16 * 32 * (96 + 32 + 64 + 64) + PRODUCTS
    assert {counted(model, TOKENS, large, monkeypatch) for large in (False, True)} == {expected}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolutions_and_products_as_torch_counts_them(layout, monkeypatch):
    torch.manual_seed(0)
    convolutions = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(6, 4, 1)
    ).to(memory_format=layout)
    images = torch.randn(2, 3, 9, 9).to(memory_format=layout)
    for model, example in ((convolutions, images), (Products(), TOKENS)):
        expected = by_torch(model, example)
        assert {counted(model, example, large, monkeypatch) for large in (False, True)} == {expected}
