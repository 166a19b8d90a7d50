"""Attentions that share a mask with a number for each head."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprune.graph import functions, traced
from tests.helpers.attentions import TOKENS, Separate
from tests.helpers.masking import exact


@pytest.fixture(params=["with values", "without values"])
def values(request, monkeypatch):
    monkeypatch.setattr(traced, "LARGE_BYTES", 2**60 if request.param == "with values" else 0)
    return request.param


class Crossing(nn.Module):
    """Attention to another sequence, with a mask made by the first block for both, as in T5."""

    def __init__(self, counted=True):
        super().__init__()
        self.blocks = nn.ModuleList(Separate() for _ in range(2))
        self.counted = counted

    def forward(self, x):
        heads = self.blocks[0].num_heads if self.counted else 4
        mask = torch.zeros(1, heads, x.shape[1], x.shape[1], dtype=x.dtype) + x.new_ones(x.shape[1]).log()
        for block in self.blocks:
            q, k, v = (
                getattr(block, f"{name}_proj")(x).unflatten(-1, (-1, 4)).transpose(1, 2) for name in "qkv"
            )
            out = F.scaled_dot_product_attention(q, k, v, mask)
            x = x + block.o_proj(out.transpose(1, 2).flatten(2))
        return x


def test_attentions_that_share_a_mask_for_each_head_have_equally_many(values):
    """Nothing but the size of the mask, which is zero, says so: both blocks lose heads together."""
    torch.manual_seed(0)
    graph = exact(Crossing().double().eval(), TOKENS, seeds=range(3), layers="linear")
    assert [sorted(p.name for p in group.producers) for group in graph.groups] == [
        [f"blocks.{k}.{name}_proj" for k in range(2) for name in "kqv"]
    ]


def test_a_mask_of_a_fixed_number_of_heads_keeps_them(values):
    torch.manual_seed(0)
    graph = exact(Crossing(counted=False).double().eval(), TOKENS, seeds=range(2), layers="linear")
    assert not graph.groups
    assert "does not follow" in graph.skipped["blocks.0.q_proj"]


@pytest.mark.parametrize("heads", [1, 3, 4])
def test_a_mask_fits_on_meta_as_it_does_with_values(heads):
    """A slice whose mask has another number of heads must fail in a trace without values too."""
    given = [torch.empty(2, 4, 5, 8, device="meta") for _ in range(3)]
    mask = torch.empty(1, heads, 5, 5, device="meta")
    if heads == 3:
        with pytest.raises(RuntimeError, match=r"3|broadcast"):
            functions.attention(*given, mask)
    else:
        assert functions.attention(*given, mask).shape == (2, 4, 5, 8)
