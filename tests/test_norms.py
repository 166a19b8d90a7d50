"""Norms over channels lose channels, which then count as zeros."""

import copy
import io
import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.convnext import LayerNorm2d

import reprune
from reprune.modules.norms import NormOfFewerChannels, for_any_width, norm_of, norms_of
from reprune.modules.slicing import replace_tensors, slice_model
from tests.helpers.masking import Toy, difference, exact, masked, randomize
from tests.helpers.norms import OwnGRN, OwnGroupNorm, OwnLayerNorm, OwnRMSNorm

WIDTH = 12


NORMS = {
    "layer": (lambda: nn.LayerNorm(WIDTH), "layer", -1),
    "layer without bias": (lambda: nn.LayerNorm(WIDTH, bias=False), "layer", -1),
    "layer of images": (lambda: LayerNorm2d(WIDTH, eps=1e-3), "layer", 1),
    "rms": (lambda: nn.RMSNorm(WIDTH, eps=1e-3), "torch.rms", -1),
    "rms, eps by type": (lambda: nn.RMSNorm(WIDTH), "torch.rms", -1),
    "rms without weight": (lambda: nn.RMSNorm(WIDTH, elementwise_affine=False), "torch.rms", -1),
    "layer without weight": (lambda: nn.LayerNorm(WIDTH, elementwise_affine=False), "layer", -1),
    "group": (lambda: nn.GroupNorm(1, WIDTH), "group", 1),
    "group without weight": (lambda: nn.GroupNorm(1, WIDTH, affine=False), "group", 1),
    "own group": (lambda: OwnGroupNorm(WIDTH), "group", 1),
    "own layer": (lambda: OwnLayerNorm(WIDTH), "layer", -1),
    "own layer without bias": (lambda: OwnLayerNorm(WIDTH, bias=False), "layer", -1),
    "own rms": (lambda: OwnRMSNorm(WIDTH), "rms", -1),
    "own response": (lambda: OwnGRN(WIDTH), "response", -1),
}


def norm_and_input(name):
    make, kind, dim = NORMS[name]
    torch.manual_seed(0)
    norm = make().double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return (
        norm,
        torch.randn(*((2, 3, 4, WIDTH) if dim == -1 else (2, WIDTH, 3, 4)), dtype=torch.float64),
        kind,
        dim,
    )


@pytest.mark.parametrize("name", NORMS)
def test_what_is_left_is_normalised_as_if_zeros_were_there(name):
    norm, x, kind, dim = norm_and_input(name)
    found = norm_of(norm)
    assert (found.norm_kind, found.norm_dim, found.full_width) == (kind, dim, WIDTH)
    kept, gone = np.array([0, 3, 4, 7, 11]), [1, 2, 5, 6, 8, 9, 10]
    small = nn.Sequential(copy.deepcopy(norm))
    slices = {f"0.{name}": {p.dim() - 1: kept} for name, p in norm.named_parameters()}
    replace_tensors(small, slice_model(small, slices), {} if slices else {"0": kept.size})
    x.index_fill_(dim, torch.tensor(gone), 0)
    expected, got = (
        norm(x).index_select(dim, torch.tensor(kept)),
        small(x.index_select(dim, torch.tensor(kept))),
    )
    assert type(small[0]).__name__ == f"{type(norm).__name__}OfFewerChannels"
    assert difference(got, expected) < 1e-12
    assert repr(small[0]).startswith(f"{type(small[0]).__name__}(5 of 12 channels, eps=")
    for other in (copy.deepcopy(small), pickle.loads(pickle.dumps(small)), torch.fx.symbolic_trace(small)):
        assert torch.equal(other(x.index_select(dim, torch.tensor(kept))), got)


@pytest.mark.parametrize("name", NORMS)
def test_with_all_channels_it_computes_the_same(name):
    norm, x, *_ = norm_and_input(name)
    ours = for_any_width(nn.Sequential(copy.deepcopy(norm)))
    assert isinstance(ours[0], NormOfFewerChannels)
    assert difference(ours(x), norm(x)) < 1e-12
    replace_tensors(ours, {})  # nothing is missing, so it is its own class again
    assert type(ours[0]) is type(norm)
    assert ours[0].__dict__.keys() == norm.__dict__.keys()
    assert torch.equal(ours(x), norm(x))


@pytest.mark.parametrize("cast", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "name, all_of_it",
    [
        ("layer", True),  # a weight of another type than its input fits on some devices only
        *((name, whole) for name in ("rms", "rms, eps by type", "own rms") for whole in (True, False)),
    ],
)
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_in_other_types_of_numbers_than_it_was_pruned_in(name, all_of_it, cast):
    """Such as a network that is cast after pruning, or activations alone, as by autocast."""
    norm, x, *_ = norm_and_input(name)
    kept = np.arange(7)
    norm, small = norm.float(), nn.Sequential(copy.deepcopy(norm.float()))
    slices = {f"0.{name}": {0: kept} for name, _ in norm.named_parameters()}
    replace_tensors(small, slice_model(small, slices))
    x = 1e-3 * x  # so small that it matters what is added to the mean
    x[..., 7:] = 0
    if all_of_it:
        norm, small = norm.to(cast), small.to(cast)
    whole, part = norm(x.to(cast)), small(x[..., :7].to(cast))
    assert whole.dtype == part.dtype
    assert difference(part, whole[..., :7]) < 4 * torch.finfo(cast if cast.itemsize < 4 else whole.dtype).eps


def test_gradients_are_those_of_the_masked_norm():
    norm, x, *_ = norm_and_input("layer")
    small = nn.Sequential(copy.deepcopy(norm))
    kept = np.arange(7)
    replace_tensors(small, slice_model(small, {"0.weight": {0: kept}, "0.bias": {0: kept}}))
    full, part = x.clone(), x[..., :7].clone().requires_grad_()
    full[..., 7:] = 0
    full.requires_grad_()
    draw = torch.randn(2, 3, 4, 7, dtype=torch.float64)
    (norm(full)[..., :7] * draw).sum().backward()
    (small(part) * draw).sum().backward()
    assert difference(part.grad, full.grad[..., :7]) < 1e-12
    assert difference(small[0].weight.grad, norm.weight.grad[:7]) < 1e-12


class GroupNormOfTokens(nn.Module):
    """A group norm of one group, of tokens [B, N, C]: its input is turned."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.GroupNorm(1, width)

    def forward(self, x):
        return self.norm(x.mT).mT


def without_weight(width):
    return nn.LayerNorm(width, elementwise_affine=False)


class Stream(nn.Module):
    """A residual stream of tokens with a norm before each block, as in a vision transformer."""

    def __init__(self, norm=nn.LayerNorm, width=WIDTH):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 2, 2)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 10, width))
        self.norms = nn.ModuleList(norm(width) for _ in range(3))
        self.up, self.down = nn.Linear(width, 20), nn.Linear(20, width)
        self.attention = nn.MultiheadAttention(width, 3, batch_first=True)
        self.head = nn.Linear(width, 4)

    def between(self, x):
        return x

    def forward(self, x):
        x = self.between(self.patch(x).flatten(2).transpose(1, 2))
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.places
        y = self.norms[0](x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(self.norms[1](x))))
        return self.head(self.norms[2](x)[:, 0])


X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm, nn.RMSNorm, OwnLayerNorm, OwnRMSNorm, without_weight, GroupNormOfTokens]
)
def test_a_stream_of_tokens(norm):
    torch.manual_seed(0)
    graph = exact(randomize(Stream(norm).double()).eval(), X, seeds=range(3), layers="all")
    assert [p.name for p in graph.groups[0].producers] == ["patch", "attention.out_proj", "down"]
    assert graph.groups[0].added


def test_a_response_norm_inside_of_a_block():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.norm, self.down = nn.Linear(3, WIDTH), OwnGRN(WIDTH), nn.Linear(WIDTH, 3)

        def forward(self, x):
            x = x.permute(0, 2, 3, 1)
            return (x + self.down(self.norm(F.gelu(self.up(x))))).mean((1, 2))

    torch.manual_seed(0)
    graph = exact(randomize(Block().double()).eval(), X, seeds=range(3), layers="all")
    assert [group.name for group in graph.groups] == ["up"]


BETWEEN = {
    "relu": (lambda x: F.relu(x), True),
    "scaled": (lambda x: x * 3 / 2, True),
    "gated": (lambda x: x * torch.sigmoid(x), True),
    "in place": (lambda x: x.add_(x).mul_(2.0), True),
    "pooled": (lambda x: F.avg_pool1d(x.transpose(1, 2), 3, 1, 1).transpose(1, 2), True),
    "power": (lambda x: x.abs() ** 1.5, True),
    "clamped": (lambda x: x.clamp(-1, 1), True),
    "padded": (lambda x: F.pad(x[:, 1:], (0, 0, 1, 0)), True),
    "dropped": (lambda x: F.dropout(x, 0.5, training=False), True),
    "stacked": (lambda x: torch.stack([x, 2 * x], 1).sum(1), True),
    "stacked with ones": (lambda x: torch.stack([x, torch.ones_like(x)]).sum(0), False),
    "sigmoid": (lambda x: torch.sigmoid(x), False),
    "cosine": (lambda x: x.cos(), False),
    "one more": (lambda x: x + 1, False),
    "one more in place": (lambda x: x.add_(1), False),
    "a part in place": (lambda x: _written(x), False),
    "a column added": (lambda x: x + torch.ones(9, 1, dtype=x.dtype), False),
    "softmax over tokens": (lambda x: x.softmax(1), False),
    "clamped from below": (lambda x: x.clamp(min=0.5), False),
    "padded with ones": (lambda x: F.pad(x[:, 1:], (0, 0, 1, 0), value=1.0), False),
    "to the power of nothing": (lambda x: x**0, False),
    "divided by itself": (lambda x: x / (x.abs() + 1e-9) + x.abs().exp(), False),
    "biased by a constant": (
        lambda x: F.instance_norm(x.mT, weight=x.mean((0, 1)), bias=x.new_ones(x.shape[2])).mT,
        False,
    ),
    "numbers of places": (lambda x: F.max_pool1d(x.mT, 3, 1, 1, return_indices=True)[1].mT.to(x), False),
}


def _written(x):
    x[:, :1].fill_(3.0)
    return x


@pytest.mark.parametrize("name", BETWEEN)
def test_only_what_is_zero_when_masked_may_leave(name):
    """Where something else than zero would count in the norm, the channels stay and the reason says so."""

    class Changed(Stream):
        def between(self, x):
            return BETWEEN[name][0](x)

    torch.manual_seed(0)
    graph = exact(randomize(Changed().double()).eval(), X, seeds=range(2), layers="all")
    assert ("patch" not in graph.skipped) == BETWEEN[name][1]
    if not BETWEEN[name][1]:
        assert graph.skipped["patch"] == (
            "is normalised over by a layer norm and need not be zero where it is masked"
        )


class Assigned(nn.Linear):
    """A Linear layer whose bias gets other values by `.data`, in place of being written to."""

    def forward(self, x):
        self.bias.data = 1 / (2 + self.bias.data.abs())
        return super().forward(x)


class Outer(nn.Module):
    """Products of all pairs of channels: of those with a masked one, half are zero."""

    def forward(self, x):
        return (x[..., :, None] * torch.sigmoid(x)[..., None, :]).mT.mT


class Turned(nn.Linear):
    """A Linear layer on the last dimension but one."""

    def forward(self, x):
        return super().forward(x.mT)


@pytest.mark.parametrize(
    "layers",
    [
        [Assigned(5, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)],
        [nn.Linear(5, WIDTH), Outer(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3), Turned(WIDTH, 2)],
    ],
    ids=["assigned", "outer"],
)
def test_what_is_not_zero_by_another_way(layers):
    """No channel that is normalised over leaves."""
    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = exact(randomize(nn.Sequential(*layers).double()).eval(), x, layers="all")
    assert graph.skipped["0"] == "is normalised over by a layer norm and need not be zero where it is masked"


def test_a_function_in_place_of_a_module_keeps_its_channels():
    class Function(Toy):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))

        def between(self, x):
            return F.layer_norm(x.permute(0, 2, 3, 1), (8,), self.weight).permute(0, 3, 1, 2)

    graph = exact(Function().double().eval(), X, seeds=range(2))
    assert graph.skipped["a"] == (
        "is normalised over by a layer norm that is no module of its own, as nn.LayerNorm is"
    )


def test_pruned_twice_a_norm_counts_all_that_have_left():
    torch.manual_seed(0)
    model = randomize(Stream().double()).eval()
    first, _ = reprune.prune(model, X, keep={"patch": 8}, layers="all", scope="all")
    second, again = reprune.prune(first, X, keep={"patch": 5}, layers="all", scope="all")
    assert [norm.full_width for norm in second.norms] == [WIDTH] * 3
    assert difference(second(X), masked(copy.deepcopy(first), again.slices)(X)) < 1e-9


@pytest.mark.parametrize("heads", [1, 2])
def test_no_fast_path_is_taken_where_norms_have_lost_channels(heads):
    """PyTorch's fast path of an encoder layer computes its norms itself, from their weights."""
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, dropout=0.0), 1, enable_nested_tensor=False
    )
    model = randomize(nn.Sequential(nn.Linear(5, 16), encoder, nn.Linear(16, 3))).eval()
    x = torch.randn(2, 7, 5)
    keep = {"0": 4 * heads, "1.layers.0.self_attn": 3 * 4 * heads}  # the stream is as wide as the heads
    small, plan = reprune.prune(model, x, keep=keep, layers="all", scope="all")
    with torch.no_grad():
        assert difference(small.eval()(x), masked(model, plan.slices)(x)) < 1e-5


def test_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    small, _ = reprune.prune(
        randomize(Stream()), X.float(), flops=0.5, layers="all", scope="all", rule="uniform"
    )
    reprune.save(small, tmp_path / "small.pt")
    loaded = reprune.load(tmp_path / "small.pt", Stream())
    whole = io.BytesIO()
    torch.save(small, whole)
    whole.seek(0)
    for other in (loaded, torch.load(whole, weights_only=False)):
        assert torch.equal(other.eval()(X.float()), small.eval()(X.float()))
        assert norms_of(other) == norms_of(small)


def test_exported_and_scripted():
    torch.manual_seed(0)
    small, _ = reprune.prune(
        randomize(Stream()), X.float(), flops=0.5, layers="all", scope="all", rule="uniform"
    )
    small.eval()
    exported = torch.export.export(small, (X.float(),)).module()
    assert difference(exported(X.float()), small(X.float())) < 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls scripts deprecated
        scripted = torch.jit.script(small.norms[0])
    tokens = torch.randn(2, 3, small.norms[0].weight.numel())
    assert torch.equal(scripted(tokens), small.norms[0](tokens))


def test_exported_to_onnx_by_the_first_exporter(tmp_path):
    """It moves the channels of images to the end and back."""
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    layers = nn.Conv2d(3, WIDTH, 1), LayerNorm2d(WIDTH), nn.Conv2d(WIDTH, 2, 1)
    small, _ = reprune.prune(
        nn.Sequential(*layers).eval(), X.float(), keep={"0": 7}, layers="all", scope="all"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch calls it deprecated
        torch.onnx.export(small, (X.float(),), tmp_path / "small.onnx", dynamo=False, input_names=["x"])
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"))
    (found,) = session.run(None, {"x": X.float().numpy()})
    assert difference(torch.from_numpy(found), small(X.float())) < 1e-6


@pytest.mark.parametrize("norm", [nn.LayerNorm, OwnRMSNorm, without_weight])
def test_trained_with_regrowth_in_both_modes(norm):
    losses = {}
    for mode in ("mask", "shrink"):
        torch.manual_seed(0)
        model = randomize(Stream(norm)).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
        pruner = reprune.Pruner(
            model, optimizer, X.float(), flops=0.6, layers="all", scope="all", rule="uniform", interval=1,
            until=5, regrow=0.5, mode=mode,
        )  # fmt: skip
        losses[mode], widths = [], set()
        for _ in range(7):
            optimizer.zero_grad()
            loss = model(X.float()).square().mean()
            loss.backward()
            optimizer.step()
            pruner.step()
            losses[mode].append(loss.item())
            widths.add(model.patch.weight.shape[0])
        pruner.finalize()
        assert isinstance(model.norms[0], NormOfFewerChannels)
        assert model.norms[0].full_width == WIDTH
    assert np.allclose(losses["mask"], losses["shrink"], rtol=1e-4)
    assert len(widths) > 1
