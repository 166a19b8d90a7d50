"""Small networks of timm's families lose heads and channels of streams, and what is left is exact."""

import functools

import pytest
import torch
from torch import nn

import reprune
from tests.helpers.masking import difference, masked, randomize

timm = pytest.importorskip("timm")

from timm.layers import GroupNorm1  # noqa: E402
from timm.models import gcvit, metaformer, nest, vision_transformer_sam  # noqa: E402


def named(name, **given):
    return lambda: timm.create_model(name, pretrained=False, num_classes=5, **given)


def sam():
    return vision_transformer_sam.VisionTransformerSAM(
        img_size=64, embed_dim=24, depth=2, num_heads=4, use_rel_pos=True, window_size=3,
        global_attn_indexes=(1,), num_classes=5,
    )  # fmt: skip


def nested():
    return nest.Nest(
        img_size=32, embed_dims=(12, 24, 48), num_heads=(3, 3, 6), depths=(1, 1, 1), num_classes=5
    )


def pool_former():
    return metaformer.MetaFormer(
        depths=(1, 1, 1, 1), dims=(16, 16, 24, 24), norm_layers=GroupNorm1, layer_scale_init_values=1.0,
        res_scale_init_values=None, use_mlp_head=False, num_classes=5,
    )  # fmt: skip


def ca_former():
    mixers = [metaformer.SepConv] * 2 + [metaformer.Attention] * 2
    norms = [metaformer.LayerNorm2dNoBias] * 2 + [metaformer.LayerNormNoBias] * 2
    return metaformer.MetaFormer(
        depths=(1, 1, 1, 1), dims=(16, 16, 64, 96), token_mixers=mixers, norm_layers=norms, num_classes=5
    )


def gc_vit():
    return gcvit.GlobalContextVit(
        img_size=64, window_size=2, embed_dim=16, num_heads=(2, 4, 4, 4), depths=(1, 1, 2, 1),
        num_classes=5,
    )  # fmt: skip


NETWORKS = {
    "eva02": (named("eva02_tiny_patch14_224", img_size=56, embed_dim=32, depth=2, num_heads=4), 56),
    "beit": (named("beit_base_patch16_224", img_size=48, embed_dim=24, depth=2, num_heads=4), 48),
    "cait": (named("cait_xxs24_224", img_size=48, embed_dim=24, depth=2, num_heads=4), 48),
    "xcit": (named("xcit_nano_12_p16_224", img_size=48, embed_dim=24, depth=2, num_heads=4), 48),
    "siglip": (named("vit_base_patch16_siglip_224", img_size=48, embed_dim=24, depth=2, num_heads=4), 48),
    "convit": (named("convit_tiny", embed_dim=24, depth=2, num_heads=4, local_up_to_layer=1), 224),
    "swin": (
        named("swin_tiny_patch4_window7_224", img_size=56, embed_dim=24, depths=(2, 1), num_heads=(3, 6)),
        56,
    ),
    "sam": (sam, 64),
    "nest": (nested, 32),
    "poolformer": (pool_former, 64),
    "caformer": (ca_former, 64),
    "gcvit": (gc_vit, 64),
}


@functools.cache
def drawn(name):
    """(network, an image), in float64, with weights of which each counts."""
    torch.manual_seed(0)
    make, side = NETWORKS[name]
    model = randomize(make()).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model, torch.randn(2, 3, side, side, dtype=torch.float64)


@pytest.mark.parametrize("name", NETWORKS)
def test_heads_and_streams_leave(name):
    model, x = drawn(name)
    small, plan = reprune.prune(model, x, sparsity=0.4, layers="all", scope="all", rule="uniform")
    assert set(plan.skipped.values()) == {"is an output of the model"}
    dense = masked(model, plan.slices)
    for mode in (True, False):
        with torch.no_grad():
            found, expected = (without_chance(net, mode)(x) for net in (small, dense))
            assert difference(found, expected) < 1e-9
            assert difference(without_chance(model, mode)(x), expected) > 1e-6  # what left did count


def without_chance(model, mode):
    model.train(mode)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or "drop" in type(module).__name__.lower():
            module.eval()
    return model
