"""Networks of segmentation_models_pytorch with small encoders, weights random."""

from __future__ import annotations

import torch
from torch import nn

CONFIGS = {
    "Unet": "resnet18",
    "UnetPlusPlus": "resnet18",
    "FPN": "efficientnet-b0",
    "PSPNet": "resnet18",
    "DeepLabV3Plus": "mobilenet_v2",
    "Linknet": "resnet18",
    "MAnet": "resnet18",
    "PAN": "resnet18",
    "UPerNet": "resnet18",
    "Segformer": "mit_b0",
}
"""{decoder: encoder}."""

ABOUT = "The encoders are small ones: ResNet-18, EfficientNet-B0, MobileNetV2 and MiT-B0."


def build(name: str) -> nn.Module:
    """The network in float32 for three classes, as the library initialises it."""
    import segmentation_models_pytorch

    model: nn.Module = getattr(segmentation_models_pytorch, name)(
        CONFIGS[name], encoder_weights=None, classes=3
    )
    return model


def example(name: str, dtype: torch.dtype) -> tuple[torch.Tensor]:
    """An image whose sides every encoder can halve as often as it wants."""
    pick = torch.Generator().manual_seed(1)
    return (torch.randn(1, 3, 128, 128, generator=pick, dtype=torch.float64).to(dtype),)
