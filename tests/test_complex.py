"""Complex numbers between layers of real ones, as in rotary embeddings."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprune.graph import build_graph
from tests.helpers.masking import exact, randomize


class Rotary(nn.Module):
    """An attention whose queries and keys are turned by angles (Su et al. 2021), as complex numbers."""

    def __init__(self, turned):
        super().__init__()
        self.embedding, self.norm = nn.Linear(3, 16), nn.LayerNorm(16)
        self.qkv, self.out, self.head = nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 2)
        self.turned = turned

    def forward(self, x):
        x = self.embedding(x)
        q, k, v = self.qkv(self.norm(x)).unflatten(2, (3, -1, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        places = torch.arange(x.shape[1], dtype=x.dtype, device=x.device)
        angles = places[:, None] * 10.0 ** -torch.arange(2, dtype=x.dtype, device=x.device)
        by = torch.polar(torch.ones_like(angles), angles)
        q, k = (self.turned(torch.view_as_complex(t.unflatten(3, (2, 2)).contiguous()), by) for t in (q, k))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(x + self.out(y))[:, 0]


@pytest.mark.parametrize(
    "turned",
    [
        lambda z, by: torch.view_as_real(z * by).flatten(3),
        lambda z, by: torch.cat([(z * by.conj()).real, (z * by.conj()).imag], dim=-1),
        lambda z, by: torch.view_as_real((z.conj() * by).conj().resolve_conj()).flatten(3),
        lambda z, by: torch.cat([z.real, z.conj().imag], dim=-1),
    ],
    ids=["turned", "back", "conjugated", "parts"],
)
def test_rotary_embeddings(turned):
    """Whole heads leave, and channels of the stream."""
    torch.manual_seed(0)
    model, x = randomize(Rotary(turned).double()).eval(), torch.randn(2, 5, 3, dtype=torch.float64)
    graph = exact(model, x, seeds=range(3), layers="all")
    assert [(group.name, group.heads) for group in graph.groups] == [("embedding", False), ("qkv", True)]
    without = build_graph(copy.deepcopy(model).to("meta"), x.to("meta"), layers="all")
    assert [group.name for group in without.groups] == ["embedding", "qkv"]
