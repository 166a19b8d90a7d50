"""Build the network of the demo: a small residual network with BatchNorm for 28x28 grey images."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

STEM = 32
STAGES = ((32, 3, 1), (64, 3, 2), (128, 3, 2))  # channels, blocks, stride of the first block
CLASSES = 10


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    The channels between the two meet no addition, so they can be pruned.

    Where shapes differ the shortcut is a 1x1 convolution, or `shortcut`.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            if shortcut is None:
                projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))
            self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:  # [B, inputs, H, W] -> [B, outputs, H/stride, W/stride]
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def build() -> nn.Sequential:
    """Return the full network, untrained: [B, 1, 28, 28] -> [B, 10].

    The pruned network is loaded by `reprune.load("reprune-demo/small.safetensors", build())`.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = nn.Sequential(
        nn.Conv2d(1, STEM, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(STEM), nn.ReLU()
    )
    inputs = STEM
    for number, (width, blocks, stride) in enumerate(STAGES, start=1):
        first = Block(inputs, width, stride)
        layers[f"stage{number}"] = nn.Sequential(first, *(Block(width, width, 1) for _ in range(blocks - 1)))
        inputs = width
    layers["head"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))
    return nn.Sequential(layers)
