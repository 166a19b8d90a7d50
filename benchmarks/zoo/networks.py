"""The networks of the zoo table: how each is built, with random weights, and what it is run on."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import nn

from benchmarks.zoo import of_smp, of_transformers, of_yolo

OTHERS: dict[str, ModuleType] = {"transformers": of_transformers, "smp": of_smp, "yolo": of_yolo}
"""Kinds that are measured beside Torch-Pruning, and the modules that build them."""
NEEDS = {"smp": "segmentation_models_pytorch", "transformers": "transformers"}

TIMM = (
    "botnet26t_256 convmixer_768_32 convnext_atto convnextv2_atto cs3darknet_m cspdarknet53 "
    "cspresnet50 cspresnext50 darknet53 densenetblur121d dla34 dla60_res2net dm_nfnet_f0 dpn68 "
    "eca_nfnet_l0 ecaresnet50d edgenext_xx_small efficientformer_l1 efficientformerv2_s0 "
    "efficientnet_b0 efficientnet_b0_gn efficientnetv2_rw_t ese_vovnet19b_dw fastvit_t8 fbnetc_100 "
    "gcresnet33ts gernet_s ghostnet_100 ghostnetv2_100 halonet26t hgnet_tiny hrnet_w18_small "
    "inception_next_atto inception_resnet_v2 inception_v4 lambda_resnet26t lcnet_100 mambaout_femto "
    "maxvit_nano_rw_256 mixnet_s mobilenetv3_large_100 mobilenetv4_conv_small mobileone_s0 mobilevit_s "
    "mobilevitv2_050 poolformer_s12 regnety_004 regnetz_005 repghostnet_100 repvgg_a0 repvit_m0_9 "
    "res2net50_26w_4s resnest14d resnetv2_50 rexnet_100 selecsls42b skresnet18 starnet_s1 tresnet_m "
    "xception41"
).split()


@dataclass(frozen=True)
class Network:
    """A network by name; `kind` is "classifier", "detector", "segmenter", "video", "timm" or one of
    `OTHERS`."""

    name: str
    kind: str

    def build(self) -> nn.Module:
        """The network in float32, as its library initialises it."""
        torch.manual_seed(0)
        if self.kind in OTHERS:
            model: nn.Module = OTHERS[self.kind].build(self.name)
            return model
        if self.kind == "timm":
            import timm

            return timm.create_model(self.name, pretrained=False)
        import torchvision

        extra: dict[str, Any] = {}
        if self.name in ("googlenet", "inception_v3"):
            extra["init_weights"] = False  # minutes of scipy otherwise
        if self.kind in ("detector", "segmenter"):
            extra["weights_backbone"] = None
        if self.kind == "detector" and not self.name.startswith("ssd"):
            extra.update(min_size=160, max_size=224)
        return torchvision.models.get_model(self.name, weights=None, **extra)

    def example(
        self, model: nn.Module, dtype: torch.dtype = torch.float32, small: bool = False
    ) -> tuple[Any, ...] | dict[str, Any]:
        """The arguments of a forward pass: an image, smaller where the network allows; for a detector with
        targets; those of transformers by name."""
        if self.kind in OTHERS:
            given: tuple[Any, ...] | dict[str, Any] = OTHERS[self.kind].example(self.name, dtype)
            return given
        pick = torch.Generator().manual_seed(1)

        def images(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=pick, dtype=torch.float64).to(dtype)

        if self.kind == "detector":
            image = torch.rand(3, 160, 200, generator=pick, dtype=torch.float64).to(dtype)
            return [image], [_target(dtype)]
        if self.kind == "segmenter":
            return (images(1, 3, 64, 64),)
        if self.kind == "video":
            if self.name.startswith(("mvit", "s3d")):
                return (images(1, 3, 16, 224, 224),)
            return (images(1, 3, 16, 64, 64),)
        if self.kind == "timm":
            return (images(1, *model.default_cfg["input_size"]),)
        side = 96 if small and not self.name.startswith(("vit", "maxvit")) else 224
        side = 299 if self.name == "inception_v3" else side  # or its auxiliary head has nothing to pool
        return (images(1, 3, side, side),)


def _target(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Two objects in an image of 160 x 200, with masks and keypoints."""
    boxes = torch.tensor([[20.0, 30.0, 90.0, 120.0], [60.0, 10.0, 150.0, 140.0]], dtype=dtype)
    masks = torch.zeros(2, 160, 200, dtype=torch.uint8)
    masks[0, 30:120, 20:90] = masks[1, 10:140, 60:150] = 1
    points = torch.cat([boxes.repeat_interleave(17, 0).view(2, 17, 4)[..., :2] + 5, torch.ones(2, 17, 1)], 2)
    return {"boxes": boxes, "labels": torch.tensor([1, 1]), "masks": masks, "keypoints": points.float()}


def networks(suite: str) -> list[Network]:
    """Those of torchvision (the small first in each kind), of timm, of one of `OTHERS`, or "all" of which
    the libraries are there."""
    found = []
    if suite in ("torchvision", "all"):
        from torchvision import models

        for kind, module in (
            ("classifier", models),
            ("detector", models.detection),
            ("segmenter", models.segmentation),
            ("video", models.video),
        ):
            names = models.list_models(module=module)
            names.sort(key=lambda name: models.get_model_weights(name).DEFAULT.meta["num_params"])
            found += [Network(name, kind) for name in names]
    if suite in ("timm", "all"):
        found += [Network(name, "timm") for name in TIMM]
    for kind, module in OTHERS.items():
        there = kind not in NEEDS or importlib.util.find_spec(NEEDS[kind]) is not None
        if suite == kind or (suite == "all" and there):
            found += [Network(name, kind) for name in module.CONFIGS]
    return found
