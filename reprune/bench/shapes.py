"""List what is measured: batches of problems, layers, whole networks, label tables."""

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import nn

BATCHES = ((512, 512, 9), (512, 64, 9), (512, 256, 1), (512, 200, 128))  # B problems of n points of d
QUICK_BATCHES = ((6, 24, 9), (6, 24, 1))
SINGLES = tuple((1, n, d) for n in (10, 100, 1000) for d in (1, 2, 9, 32, 128))
LARGE_SINGLES = tuple((1, 5000, d) for d in (1, 2, 9, 32, 128))  # seconds each
QUICK_SINGLES = ((1, 12, 2),)
TABLES = ((512, 512), (512, 1024))  # labels [O, I]
QUICK_TABLES = ((24, 16),)
NETWORKS = ("resnet18", "resnet50", "vgg16")  # of torchvision


@dataclass(frozen=True)
class Layer:
    """The shape of a convolution, as selection needs it."""

    name: str
    O: int
    I: int
    side: tuple[int, ...]

    @property
    def d(self) -> int:
        """Number of coordinates of a kernel."""
        size = 1
        for length in self.side:
            size *= length
        return size

    @property
    def keep(self) -> int:
        """Number of filters to keep: half of them, in every benchmark."""
        return max(1, self.O // 2)

    def __str__(self) -> str:
        return "x".join(map(str, (self.O, self.I, *self.side)))


LAYERS = (
    Layer("layer", 64, 64, (3, 3)),
    Layer("layer", 256, 256, (3, 3)),
    Layer("layer", 512, 512, (3, 3)),
    Layer("layer", 1024, 1024, (3, 3)),
    Layer("layer", 2048, 512, (1, 1)),
)
QUICK_LAYERS = (Layer("layer", 24, 6, (3, 3)), Layer("layer", 24, 6, (1, 1)))


def network(name: str) -> list[Layer]:
    """Return all convolutions of a torchvision network, built without memory for its weights."""
    from torchvision import models

    with torch.device("meta"):
        model = models.get_model(name, weights=None)
    return [
        Layer(where, module.weight.shape[0], module.weight.shape[1], tuple(module.weight.shape[2:]))
        for where, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]


def networks_known() -> bool:
    """Return whether torchvision is installed, which knows the shapes."""
    return find_spec("torchvision") is not None
