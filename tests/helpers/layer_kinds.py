"""Networks whose layers are of every kind that compensation fits."""

import torch
from torch import nn
from torch.nn import functional as F

from tests.helpers.networks import Residual, images


class Separable(nn.Module):
    """A depthwise convolution between two others."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 12, 1)
        self.b = nn.Conv2d(12, 12, 3, padding=1, groups=12, stride=2)
        self.c = nn.Conv2d(12, 6, 1)

    def forward(self, x):
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))))


class Twice(nn.Module):
    """A module that is called twice."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.block = nn.Sequential(nn.Conv2d(6, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 6, 3, padding=1))

    def forward(self, x):
        x = self.a(x)
        x = x + self.block(x)
        return x + self.block(x)


class Circular(nn.Module):
    """Padding that is no argument of the convolution."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 10, 3, padding=1, padding_mode="circular")
        self.b = nn.Conv2d(10, 6, 3, padding=(2, 1), padding_mode="reflect", bias=False)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x):
        x = F.pad(torch.relu(self.a(F.pad(x, (1, 0, 2, 0)))), (0, 3, 1, 1), value=0.5)
        return self.norm(self.b(x))


def dimensional(dims):
    """Convolutions and transposed ones along `dims` dimensions."""
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    turned = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
    return nn.Sequential(
        conv(3, 10, 3, padding="same", dilation=2),
        nn.ReLU(),
        turned(10, 8, 3, stride=2, padding=1, output_padding=1),
        nn.ReLU(),
        conv(8, 6, 3, stride=2, groups=2, dilation=2),
        nn.ReLU(),
        conv(6, 4, 1),
    )


def volume(dims, n=48):
    return torch.randn(n, 3, *(20, 9, 7)[:dims], generator=torch.Generator().manual_seed(0))


NETWORKS = {
    "1-d": (lambda: dimensional(1), volume(1), {"0": 6, "2": 4}),
    "2-d": (lambda: dimensional(2), volume(2), {"0": 6, "2": 4}),
    "3-d": (lambda: dimensional(3), volume(3, 24), {"0": 6, "2": 4}),
    "depthwise": (Separable, images(48), {"a": 8}),
    "called twice": (Twice, images(48), {"block.0": 8}),
    "padding": (Circular, images(48), {"a": 6}),
    "transposed, in groups": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 12, 3),
            nn.ReLU(),
            nn.ConvTranspose2d(12, 6, (3, 2), stride=(1, 2), groups=3),
            nn.Conv2d(6, 4, 1),
        ),
        images(48),
        {"0": 8},
    ),
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(3, 12, 3), nn.GroupNorm(4, 12), nn.ReLU(), nn.Conv2d(12, 4, 3)),
        images(48),
        {"0": 6},
    ),
    "residual": (
        lambda: nn.Sequential(nn.Conv2d(3, 10, 3), Residual(10, 8), nn.Conv2d(10, 4, 1)),
        images(48),
        {"0": 6},
    ),
}
"""{name: (a function that builds the network, images, {layer: channels to keep})}."""
