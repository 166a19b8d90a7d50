"""Attentions that take the width of their heads to be that of their input lose heads, and the stream too."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from reprune.modules.heads import for_any_heads
from reprune.modules.own_width import WithOwnWidth, class_with_own_width
from reprune.modules.slicing import replace_tensors
from tests.helpers.masking import difference, exact, masked, randomize
from tests.helpers.own_width import KINDS, Plain, Stream

pytestmark = pytest.mark.xdist_group("own width")  # which share what `pruned` makes
X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SETTINGS = {"layers": "all", "scope": "all", "rule": "uniform"}


def drawn(kind):
    torch.manual_seed(0)
    model = randomize(Stream(KINDS[kind]).double()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@functools.cache
def pruned(kind):
    """(network, it with half of its channels and heads, the plan), which tests leave as they are."""
    model = drawn(kind)
    return model, *reprune.prune(model, X, sparsity=0.35, **SETTINGS)


def without_dropout(model, mode):
    model.train(mode)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_heads_and_stream_leave_and_the_rest_is_exact(kind):
    graph = exact(drawn(kind), X, seeds=range(3), layers="all")
    assert set(graph.skipped) == {"head"}
    heads = [group.atoms.size for group in graph.groups if group.heads]
    assert heads.count(4) == 2
    assert any(group.added and group.atoms.size == 12 for group in graph.groups)


@pytest.mark.parametrize("kind", KINDS)
def test_a_smaller_network_is_like_any_other(kind, tmp_path):
    model, small, plan = pruned(kind)
    assert not any(isinstance(module, WithOwnWidth) for module in model.modules())
    small = copy.deepcopy(small)
    dense = masked(model, plan.slices)
    for mode in (True, False):
        with torch.no_grad():
            found, expected = (without_dropout(net, mode)(X) for net in (small, dense))
        assert difference(found, expected) < 1e-9
    assert torch.equal(pickle.loads(pickle.dumps(small))(X), small(X))
    reprune.save(small, tmp_path / "small.safetensors")
    again = reprune.load(tmp_path / "small.safetensors", drawn(kind)).eval()
    assert torch.equal(again(X), small(X))
    assert torch.equal(torch.fx.symbolic_trace(small)(X), small(X))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_it_can_be_scripted_exported_and_compiled():
    """Its methods have a source, as others have; dynamo finds nothing in them to stop at."""
    _, small, _ = pruned("Plain")
    attention = copy.deepcopy(small.attentions[0])
    assert isinstance(attention, WithOwnWidth)
    x = torch.randn(2, 9, attention.width_of_input, dtype=torch.float64)
    expected = attention(x)
    assert torch.equal(torch.jit.script(attention)(x), expected)
    assert difference(torch.export.export(attention, (x,)).module()(x), expected) < 1e-12
    assert difference(torch.compile(attention, backend="eager", fullgraph=True)(x), expected) < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_with_all_heads_it_computes_the_same_to_the_last_bit(kind):
    torch.manual_seed(0)
    theirs = randomize(KINDS[kind](12, 4))
    ours = for_any_heads(nn.Sequential(copy.deepcopy(theirs)))[0]
    assert isinstance(ours, WithOwnWidth)
    assert isinstance(ours, type(theirs))
    assert (ours.width_of_heads, ours.width_of_input) == (12, 12)
    x = torch.randn(2, 9, 12)
    for mode in (True, False):
        found = []
        for module in (theirs.train(mode), ours.train(mode)):
            torch.manual_seed(1)
            given = x.clone().requires_grad_()
            out = module(given)
            out.square().sum().backward()
            found.append((out, given.grad))
        for one, other in zip(*found, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_with_all_heads_back_it_is_its_own_class_again(kind):
    model, small, plan = pruned(kind)
    small = copy.deepcopy(small)
    assert all(isinstance(one, WithOwnWidth) for one in small.attentions)
    full = {n: t.clone() for n, t in (model.state_dict() | dict(model.named_buffers())).items()}
    named = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    replace_tensors(small, {t: _like(t, full[n]) for n, t in named.items() if n in plan.slices})
    assert [type(one) for one in small.attentions] == [KINDS[kind]] * 2
    for one, other in zip(small.attentions, model.attentions, strict=True):
        assert one.__dict__.keys() - {"_reprune_plan"} == other.__dict__.keys()
    assert torch.equal(small(X), model(X))


def _like(old, value):
    return nn.Parameter(value) if isinstance(old, nn.Parameter) else value


def test_stream_and_heads_of_one_width_need_no_other_class():
    model = drawn("Plain")
    keep = {"patch": 6, "attentions.0.qkv": 18, "attentions.1.qkv": 9}
    small, plan = reprune.prune(model, X, keep=keep, layers="all", scope="all")
    assert type(small.attentions[0]) is Plain
    assert isinstance(small.attentions[1], WithOwnWidth)
    assert difference(small(X), masked(model, plan.slices)(X)) < 1e-9


def test_pruned_twice():
    _, small, _ = pruned("Plain")
    again, plan = reprune.prune(small, X, sparsity=0.35, **SETTINGS)
    assert again.attentions[0].num_heads == 1
    assert difference(again(X), masked(small, plan.slices)(X)) < 1e-9


def test_it_is_fitted_to_the_whole_one():
    model = drawn("Plain")
    images = torch.randn(8, 3, 6, 6, dtype=torch.float64)
    small, _ = reprune.prune(model, X, sparsity=0.35, calibrate=images, **SETTINGS)
    assert [type(module) for module in model.attentions] == [Plain] * 2
    assert model.attentions[0].__dict__.keys() == Plain(12, 4).__dict__.keys()
    assert all(isinstance(module, WithOwnWidth) for module in small.attentions)


@pytest.mark.parametrize("kind", ["Plain", "Biased", "Talking"])
def test_trained_with_regrowth_in_both_modes(kind):
    losses = {}
    for mode in ("mask", "shrink"):
        torch.manual_seed(0)
        model = without_dropout(randomize(Stream(KINDS[kind])), True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        pruner = reprune.Pruner(
            model, optimizer, X.float(), flops=0.45, interval=1, until=5, regrow=0.5, mode=mode, **SETTINGS
        )
        losses[mode], heads = [], set()
        for _ in range(7):
            optimizer.zero_grad()
            loss = model(X.float()).square().mean()
            loss.backward()
            optimizer.step()
            pruner.step()
            losses[mode].append(loss.item())
            heads.add(model.attentions[0].qkv.weight.shape[0])
        pruner.finalize()
        assert isinstance(model.attentions[0], WithOwnWidth)
    assert np.allclose(losses["mask"], losses["shrink"], rtol=1e-4)
    assert len(heads) > 1


def decorated(method):
    return functools.wraps(method)(lambda *args: method(*args))


class Decorated(Plain):
    forward = decorated(Plain.forward)


class Closed(Plain):
    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads)
        return super().forward(x) + 0 * qkv.sum()


class Private(Plain):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.__twice = 2

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        attn = (qkv[0] @ qkv[1].transpose(-2, -1)).softmax(dim=-1)
        return self.__twice * self.proj((attn @ qkv[2]).transpose(1, 2).reshape(B, N, C))


class OtherWidth(Plain):
    """The heads are not as wide as the input, so C is not their width."""

    def __init__(self, dim, num_heads):
        super().__init__(dim, num_heads)
        self.qkv, self.proj = nn.Linear(dim, 15 * num_heads), nn.Linear(5 * num_heads, dim)

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads + 2).permute(2, 0, 3, 1, 4)
        attn = (qkv[0] @ qkv[1].transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attn @ qkv[2]).transpose(1, 2).reshape(B, N, C // 3 * 5))


class Unfolded(Plain):
    """A layer makes twice as much as the input has, of which C are channels all the same."""

    def __init__(self, dim, num_heads):
        super().__init__(dim, num_heads)
        self.wide = nn.Linear(dim, 2 * dim)

    def forward(self, x):
        B, N, C = x.shape
        gate = self.wide(x).reshape(B, 2 * N, C).unflatten(1, (N, 2)).mean((2, 3)).unsqueeze(-1)
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        attn = (qkv[0] @ qkv[1].transpose(-2, -1)).softmax(dim=-1)
        return gate * self.proj((attn @ qkv[2]).transpose(1, 2).reshape(B, N, C))


def test_a_layer_of_another_width_is_not_taken_for_one_of_this():
    torch.manual_seed(0)
    model = without_dropout(Stream(Unfolded).double(), False)
    graph = exact(model, X, seeds=range(3), layers="all")
    assert "attentions.0.wide" in graph.skipped
    assert [group.atoms.size for group in graph.groups if group.heads] == [4, 4]
    small, plan = reprune.prune(model, X, keep={"attentions.0.qkv": 18}, layers="all", scope="all")
    assert small.attentions[0].width_of_wide == 0
    assert difference(small(X), masked(model, plan.slices)(X)) < 1e-9


class Final(Plain):
    """No class can derive from it."""

    def __init_subclass__(cls):
        raise TypeError("this class is final")


EXECUTED: dict = {}
exec(
    """
class Executed(Plain):
    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        attn = (qkv[0] @ qkv[1].transpose(-2, -1)).softmax(dim=-1)
        return self.proj((attn @ qkv[2]).transpose(1, 2).reshape(B, N, C))
""",
    {"Plain": Plain, "__name__": "nowhere"},
    EXECUTED,
)


@pytest.mark.parametrize("kind", [Decorated, Closed, Private, OtherWidth, Final, EXECUTED["Executed"]])
def test_what_cannot_be_rewritten_keeps_heads_and_stream(kind):
    torch.manual_seed(0)
    model = without_dropout(Stream(kind).double(), False)
    graph = exact(model, X, seeds=range(2), layers="all")
    assert [group.name for group in graph.groups] == ["up"]
    assert "attentions.0.qkv" in graph.skipped
    if kind is not OtherWidth:
        assert class_with_own_width(kind) is None
