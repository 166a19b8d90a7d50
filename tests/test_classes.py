"""A network that asks for the classes of its modules is followed with these."""

import pytest
import torch
from torch import nn

import reprune
from reprune.graph import classes
from tests.helpers.masking import exact, randomize
from tests.helpers.own_width import Plain, Stream

X = torch.randn(2, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.up, self.mid, self.inner, self.down = (
            nn.Linear(8, 16),
            nn.Linear(16, 12),
            inner,
            nn.Linear(12, 3),
        )

    def inside(self, x):
        return self.inner(x)

    def forward(self, x):
        return self.down(self.inside(self.mid(self.up(x).relu())))


class OfTypes(Block):
    kind = nn.LayerNorm

    def inside(self, x):
        return 2 * self.inner(x) if type(self.inner) is self.kind else self.inner(x)


class OfHelpers(OfTypes):
    @property
    def is_norm(self):
        return is_norm(self.inner)

    def inside(self, x):
        x = self.inner(x)
        return x + 1 if self.is_norm else x


class OfAttentions(OfTypes):
    kind = nn.MultiheadAttention

    def inside(self, x):
        found = self.inner(x, x, x)[0]
        return found * (3 if self.inner.__class__ is self.kind else 1)


def is_norm(module):
    return module._get_name() == "LayerNorm"


def hooked(block):
    def double(module, _, out):
        return 2 * out if type(module) is nn.LayerNorm else out

    block.inner.register_forward_hook(double)
    return block


class OfItself(Plain):
    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        attn = (qkv[0] @ qkv[1].transpose(-2, -1)).softmax(dim=-1)
        attn = attn * (3.0 if type(self) is OfItself else 1.0)
        return self.proj((attn @ qkv[2]).transpose(1, 2).reshape(B, N, C))


def norm():
    return nn.LayerNorm(12)


def attention():
    return nn.MultiheadAttention(12, 4, batch_first=True)


ASKING = {
    "type": lambda: OfTypes(norm()),
    "helper": lambda: OfHelpers(norm()),
    "hook": lambda: hooked(Block(norm())),
    "attention": lambda: OfAttentions(attention()),
}


@pytest.mark.parametrize("case", ASKING)
def test_what_is_pruned_is_what_is_masked(case):
    torch.manual_seed(0)
    graph = exact(randomize(ASKING[case]().double()).eval(), X, seeds=range(3), layers="linear")
    assert [group.name for group in graph.groups] == ["up"]


def test_an_attention_that_asks_for_its_own_class_keeps_its_heads():
    torch.manual_seed(0)
    graph = exact(randomize(Stream(OfItself).double()).eval(), IMAGES, seeds=range(3), layers="all")
    assert [group.name for group in graph.groups] == ["up"]


class Harmless(OfTypes):
    """It asks, and does the same in any case."""

    def inside(self, x):
        assert type(self.inner).__name__
        x = self.inner(x).transpose(0, 1)
        return (x if type(self.inner) is nn.LayerNorm else x.contiguous()).transpose(0, 1)


def test_to_ask_is_no_obstacle():
    torch.manual_seed(0)
    graph = exact(randomize(Harmless(norm()).double()).eval(), X, seeds=range(3), layers="linear")
    assert sorted(group.name for group in graph.groups) == ["mid", "up"]


@pytest.mark.parametrize("shapes", [True, False])
@pytest.mark.parametrize("case", [*ASKING, "harmless"])
def test_it_is_seen_with_values_and_without(case, shapes):
    model = Harmless(norm()).double() if case == "harmless" else ASKING[case]().double()
    example = ((X.to("meta") if shapes else X,), {})
    device = torch.device("cpu") if shapes else None
    assert classes.depends_on_classes(model, example, shapes, device) is (case != "harmless")


def test_who_does_not_ask_is_not_run_once_more(monkeypatch):
    runs = []
    monkeypatch.setattr(classes, "run", lambda *_: runs.append(1))
    reprune.trace(Block(norm()), X.float())
    assert not runs
    reprune.trace(OfTypes(norm()), X.float())
    assert runs
