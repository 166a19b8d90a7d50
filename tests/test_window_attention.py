"""torchvision's attentions in windows lose heads too: Swin, Swin V2, Swin of videos and MaxViT."""

import copy
import functools
import pickle

import pytest
import torch
from torch import nn

import reprune
from reprune.graph import traced
from reprune.modules.heads import for_any_heads
from reprune.modules.slicing import replace_tensors
from tests.helpers.masking import difference, exact, masked

models = pytest.importorskip("torchvision").models
from torchvision.models import maxvit, swin_transformer  # noqa: E402
from torchvision.models.video import swin_transformer as video  # noqa: E402

from reprune.modules import windows  # noqa: E402

SWIN, SWIN_V2 = swin_transformer.ShiftedWindowAttention, swin_transformer.ShiftedWindowAttentionV2
SWIN_3D = video.ShiftedWindowAttention3d
MAXVIT = maxvit.RelativePositionalMultiHeadAttention
pytestmark = pytest.mark.xdist_group("windows")  # which share what `pruned` makes


def swin(second=False):
    """Two stages, with and without a shift; images of 44 are no multiple of a window of 3 patches."""
    block = swin_transformer.SwinTransformerBlockV2 if second else swin_transformer.SwinTransformerBlock
    merge = swin_transformer.PatchMergingV2 if second else swin_transformer.PatchMerging
    return models.SwinTransformer(
        [4, 4],
        12,
        [2, 1],
        [3, 6],
        [3, 3],
        num_classes=5,
        stochastic_depth_prob=0.0,
        block=block,
        downsample_layer=merge,
    )


def swin_v2():
    return swin(second=True)


def max_vit():
    """One block, whose attentions are in windows and on a grid."""
    return models.MaxVit((32, 32), 8, 4, [16], [1], head_dim=4, stochastic_depth_prob=0.0, num_classes=5)


def swin_3d():
    return video.SwinTransformer3d(
        [2, 4, 4], 12, [2, 1], [3, 6], [2, 3, 3], num_classes=5, stochastic_depth_prob=0.0
    )


NETWORKS = {
    "swin": (swin, (44, 44)),
    "swin v2": (swin_v2, (44, 44)),
    "swin of videos": (swin_3d, (6, 28, 20)),
    "maxvit": (max_vit, (32, 32)),
}


def drawn(name):
    """(network in evaluation mode, whose biases and norms are not those of the start; images), in float64."""
    torch.manual_seed(0)
    make, sides = NETWORKS[name]
    model = make().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model, torch.randn(2, 3, *sides, dtype=torch.float64)


@functools.cache
def pruned(name):
    """(network, images, it with half the heads, the plan), which tests leave as they are."""
    model, x = drawn(name)
    return model, x, *reprune.prune(model, x, sparsity=0.5, rule="uniform", layers="linear")


def attentions(model):
    return [module for module in model.modules() if isinstance(module, (SWIN, SWIN_3D, MAXVIT))]


@pytest.mark.parametrize(  # of the others with values, half of the heads leave in the next test
    "name, how",
    [
        *((name, "without values") for name in NETWORKS),
        ("swin", "with values"),
        *(
            pytest.param(name, "with values", marks=pytest.mark.slow)
            for name in ("swin v2", "swin of videos", "maxvit")
        ),
    ],
)
def test_whole_heads_leave_and_the_rest_is_exact(name, how, monkeypatch):
    monkeypatch.setattr(traced, "LARGE_BYTES", 0 if how == "without values" else 2**60)
    model, x = drawn(name)
    graph = exact(model, x, layers="linear")
    heads = [group.atoms.size for group in graph.groups if group.heads]
    assert heads == [getattr(m, "n_heads", None) or m.num_heads for m in attentions(model)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_smaller_network_is_like_any_other(name, tmp_path):
    model, x, small, plan = pruned(name)
    small = copy.deepcopy(small)
    assert {type(m) for m in attentions(model)}.isdisjoint(windows.TWINS.values())
    assert {type(m) for m in attentions(small)} <= {*windows.TWINS.values()}
    dense = masked(model, plan.slices)
    for mode in (True, False):
        with torch.no_grad():
            assert difference(small.train(mode)(x), dense.train(mode)(x)) < 1e-9
    assert torch.equal(pickle.loads(pickle.dumps(small))(x), small(x))
    reprune.save(small, tmp_path / "small.safetensors")
    again = reprune.load(tmp_path / "small.safetensors", drawn(name)[0]).eval()
    assert torch.equal(again(x), small(x))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("written_as", [torch.fx.symbolic_trace, torch.jit.script])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_smaller_network_can_be_written_as_code_like_a_whole_one(name, written_as):
    model, x, small, _ = pruned(name)
    for network in (model, small):
        code = written_as(network)
        for images in (x,) if name == "maxvit" else (x, x[..., :25, :18]):
            assert difference(code(images).detach(), network(images).detach()) < 1e-9


@pytest.mark.parametrize("name", ["swin", "maxvit"])
def test_it_is_fitted_to_the_whole_one(name):
    model, x = drawn(name)
    kinds = [type(module) for module in attentions(model)]
    images = torch.randn(8, *x.shape[1:], dtype=torch.float64)
    small, _ = reprune.prune(model, x, sparsity=0.5, rule="uniform", layers="linear", calibrate=images)
    assert [type(module) for module in attentions(model)] == kinds
    assert {type(module) for module in attentions(small)} <= {*windows.TWINS.values()}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", [SWIN, SWIN_V2])
def test_with_all_heads_it_is_torchvisions_to_the_last_bit(kind, bias):
    for shift, sides in (
        ((0, 0), (6, 8)),
        ((1, 2), (7, 9)),
        ((0, 2), (6, 8)),
        ((1, 2), (3, 11)),
        ((1, 2), (2, 3)),
    ):
        torch.manual_seed(0)
        theirs = kind(12, [3, 4], list(shift), 3, bias, bias, attention_dropout=0.2, dropout=0.1)
        for parameter in theirs.parameters():
            nn.init.normal_(parameter)
        same(theirs, torch.randn(2, *sides, 12))


def test_so_is_that_of_videos():
    for shift, sides in (((1, 1, 2), (4, 6, 9)), ((1, 1, 2), (2, 5, 3)), ((0, 1, 0), (3, 7, 8))):
        torch.manual_seed(0)
        theirs = SWIN_3D(12, [2, 3, 4], list(shift), 3, attention_dropout=0.2, dropout=0.1)
        for parameter in theirs.parameters():
            nn.init.normal_(parameter)
        same(theirs, torch.randn(2, *sides, 12))


def test_so_is_that_of_maxvit():
    torch.manual_seed(0)
    same(MAXVIT(12, 4, 9), torch.randn(2, 5, 9, 12))


def same(theirs, x):
    ours = for_any_heads(copy.deepcopy(theirs))
    assert type(ours) is windows.TWINS[type(theirs)]
    for mode in (True, False):
        found = []
        for module in (theirs.train(mode), ours.train(mode)):
            torch.manual_seed(1)
            given = x.clone().requires_grad_()
            out = module(given)
            out.square().sum().backward()
            found.append((out, given.grad, module.qkv.weight.grad if type(theirs) is not MAXVIT else out))
        for one, other in zip(*found, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", NETWORKS)
def test_with_all_heads_back_it_is_torchvisions_again(name):
    model, x, small, plan = pruned(name)
    small = copy.deepcopy(small)
    kinds = [type(module) for module in attentions(model)]
    assert [type(module) for module in attentions(small)] == [windows.TWINS[kind] for kind in kinds]
    full = {n: t.clone() for n, t in model.named_parameters() if n in plan.slices}
    replace_tensors(small, {t: full[n] for n, t in small.named_parameters() if n in full})
    assert [type(module) for module in attentions(small)] == kinds
    assert torch.equal(small(x), model(x))
