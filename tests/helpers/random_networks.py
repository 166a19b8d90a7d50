"""Random networks for fuzzing the graph: residuals, concatenations, chunks, shuffles, grouped and depthwise
convolutions, squeeze-and-excitation, GroupNorm, padded shortcuts, flatten."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """One of many ways to go on from `channels` channels; `width` is what comes out."""

    width: int


class Plain(Block):
    def __init__(self, channels: int, pick: torch.Generator) -> None:
        super().__init__()
        self.width = 4 * _number(1, 6, pick)
        self.conv = nn.Conv2d(channels, self.width, 3, padding=1)
        self.norm = nn.BatchNorm2d(self.width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.norm(self.conv(x)))


class Residual(Block):
    def __init__(self, channels: int, pick: torch.Generator) -> None:
        super().__init__()
        self.width = channels
        inner = 4 * _number(1, 5, pick)
        self.a = nn.Conv2d(channels, inner, 1, bias=False)
        self.norm = nn.BatchNorm2d(inner)
        self.b = nn.Conv2d(inner, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.nn.functional.silu(self.norm(self.a(x))))


class Concatenation(Block):
    def __init__(self, channels: int, pick: torch.Generator) -> None:
        super().__init__()
        grown = 2 * _number(1, 4, pick)
        self.width = channels + grown
        self.norm = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, grown, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(torch.relu(self.norm(x)))], dim=1)


class Grouped(Block):
    def __init__(self, channels: int, pick: torch.Generator) -> None:
        super().__init__()
        groups = channels if _number(0, 2, pick) else next(g for g in (4, 2, 1) if channels % g == 0)
        self.width = channels * (2 if groups == channels and _number(0, 2, pick) else 1)
        self.conv = nn.Conv2d(channels, self.width, 3, padding=1, groups=groups)
        self.norm = nn.BatchNorm2d(self.width)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.hardswish(self.norm(self.conv(x)))


class SqueezeExcitation(Block):
    def __init__(self, channels: int, pick: torch.Generator) -> None:
        super().__init__()
        self.width = channels
        squeezed = _number(2, 6, pick)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.expand = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class Shuffle(Block):
    """ShuffleNet's unit: half passes, half is worked on, and the two are interleaved."""

    def __init__(self, channels: int, pick: torch.Generator) -> None:
        super().__init__()
        self.width = channels
        half = channels // 2
        self.inner = nn.Sequential(nn.Conv2d(half, half, 1), nn.BatchNorm2d(half), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        a, b = x.chunk(2, dim=1)
        x = torch.cat([a, self.inner(b)], dim=1)
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class GroupNormed(Block):
    def __init__(self, channels: int, pick: torch.Generator) -> None:
        super().__init__()
        self.width = 4 * _number(2, 5, pick)
        self.conv = nn.Conv2d(channels, self.width, 3, padding=1, bias=False)
        self.norm = nn.GroupNorm(self.width // 2, self.width)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(self.norm(self.conv(x)))


class PaddedShortcut(Block):
    """A shortcut padded with zero channels, as the CIFAR ResNets of the first paper."""

    def __init__(self, channels: int, pick: torch.Generator) -> None:
        super().__init__()
        self.width = channels + 4
        self.conv = nn.Conv2d(channels, self.width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + nn.functional.pad(x, (0, 0, 0, 0, 2, 2))


class Upsampled(Block):
    """A transposed convolution up and a pixel shuffle's inverse down again."""

    def __init__(self, channels: int, pick: torch.Generator) -> None:
        super().__init__()
        self.width = 4 * _number(1, 4, pick)
        self.up = nn.ConvTranspose2d(channels, self.width, 2, stride=2)
        self.act = nn.PReLU(self.width)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(self.act(self.up(x)), 2)


class Gated(Block):
    def __init__(self, channels: int, pick: torch.Generator) -> None:
        super().__init__()
        self.width = 2 * _number(2, 6, pick)
        self.conv = nn.Conv2d(channels, 2 * self.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.glu(self.conv(x), dim=1)


class FeedForward(Block):
    """A transformer's: two Linear layers on channels last, normalised before."""

    def __init__(self, channels: int, pick: torch.Generator) -> None:
        super().__init__()
        self.width = channels
        hidden = _number(3, 9, pick)
        self.norm = nn.LayerNorm(channels)
        self.a = nn.Linear(channels, hidden)
        self.b = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.permute(0, 2, 3, 1))
        return x + self.b(nn.functional.gelu(self.a(y))).permute(0, 3, 1, 2)


class WideGroups(Block):
    """Two or three wide groups, each of which can lose channels; the gate between them is shared."""

    def __init__(self, channels: int, pick: torch.Generator) -> None:
        super().__init__()
        groups, width = _number(2, 4, pick), _number(4, 7, pick)
        inner = groups * width
        self.width = channels
        self.a = nn.Conv2d(channels, inner, 1)
        self.b = nn.Conv2d(inner, inner, 3, padding=1, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(inner)
        self.gate = nn.Linear(inner, inner)
        self.c = nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.b(torch.relu(self.a(x)))))
        gate = torch.sigmoid(self.gate(y.mean((2, 3))))
        return x + self.c(y * gate[:, :, None, None])


BLOCKS = (
    Plain,
    Residual,
    Concatenation,
    Grouped,
    SqueezeExcitation,
    Shuffle,
    GroupNormed,
    PaddedShortcut,
    Upsampled,
    Gated,
    FeedForward,
    WideGroups,
)


class RandomNetwork(nn.Module):
    """A stem, three to seven random blocks, and a head that flattens or pools."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        pick = torch.Generator().manual_seed(seed)
        channels = 4 * _number(1, 4, pick)
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        blocks = []
        for _ in range(_number(3, 8, pick)):
            block = BLOCKS[_number(0, len(BLOCKS), pick)](channels, pick)
            channels = block.width
            blocks.append(block)
        self.blocks = nn.Sequential(*blocks)
        self.flatten = bool(_number(0, 2, pick))
        self.hidden = nn.Linear(channels * (16 if self.flatten else 1), 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        x = nn.functional.adaptive_avg_pool2d(x, 4 if self.flatten else 1)
        return self.head(torch.relu(self.hidden(torch.flatten(x, 1))))


def _number(low: int, high: int, pick: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=pick))
