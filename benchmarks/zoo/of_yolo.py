"""Detectors in one stage, written for this benchmark from the blocks that the YOLO family is known for.

c2f            halves that are kept after every bottleneck (C2f), box sides as distributions over 16 bins
elan           two branches, one of them read after every second convolution (ELAN), downsampling in two ways
repvgg         3 x 3, 1 x 1 and identity side by side, which add up to one convolution after training
csp            a bottleneck path beside a plain one (CSP), pools in a row (SPPF), boxes from three anchors
decoupled      pixels moved into channels, and heads of their own for class, box and objectness
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

CLASSES, BINS, ANCHORS = 8, 16, 3
Stage = Callable[[int, int], nn.Module]


class Conv(nn.Sequential):
    """Convolution, BatchNorm, SiLU; as large as before, or half of it with `stride` 2."""

    def __init__(self, i: int, o: int, side: int = 1, stride: int = 1, groups: int = 1) -> None:
        conv = nn.Conv2d(i, o, side, stride, side // 2, groups=groups, bias=False)
        super().__init__(conv, nn.BatchNorm2d(o), nn.SiLU())


class Residual(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv(channels, inner, 3), Conv(inner, channels, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class C2f(nn.Module):
    """Two halves; the second goes through bottlenecks, and every stage of it is kept."""

    def __init__(self, i: int, o: int, depth: int = 2) -> None:
        super().__init__()
        self.enter, self.leave = Conv(i, o), Conv((2 + depth) * (o // 2), o)
        self.blocks = nn.ModuleList(Residual(o // 2, o // 2) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Elan(nn.Module):
    """Two branches of one input; the second is read after every second convolution."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        half = o // 2
        self.beside, self.enter = Conv(i, half), Conv(i, half)
        self.blocks = nn.ModuleList(nn.Sequential(Conv(half, half, 3), Conv(half, half, 3)) for _ in range(2))
        self.leave = Conv(4 * half, o)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.beside(x), self.enter(x)]
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Csp(nn.Module):
    """Bottlenecks on one path and nothing on the other, side by side."""

    def __init__(self, i: int, o: int, depth: int = 2) -> None:
        super().__init__()
        half = o // 2
        self.path = nn.Sequential(Conv(i, half), *(Residual(half, half) for _ in range(depth)))
        self.beside, self.leave = Conv(i, half), Conv(2 * half, o)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(torch.cat([self.path(x), self.beside(x)], 1))


class RepVgg(nn.Module):
    """3 x 3, 1 x 1 and, where the widths allow, identity, each with a BatchNorm, summed."""

    def __init__(self, i: int, o: int, stride: int = 1) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o))
        self.narrow = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))
        self.identity = nn.BatchNorm2d(i) if i == o and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x) + self.narrow(x)
        return torch.relu(y if self.identity is None else y + self.identity(x))


class Sppf(nn.Module):
    """Three pools in a row, all of them read."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.enter, self.leave = Conv(i, i // 2), Conv(2 * i, o)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class TwoWays(nn.Module):
    """Half of the size by a pool on one path and a stride on the other."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.pooled = nn.Sequential(nn.MaxPool2d(2), Conv(i, o // 2))
        self.strided = nn.Sequential(Conv(i, o // 2), Conv(o // 2, o // 2, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.pooled(x), self.strided(x)], 1)


class Focus(nn.Module):
    """Every second pixel of every second row, four times, as channels."""

    def __init__(self, i: int, o: int) -> None:
        super().__init__()
        self.conv = Conv(4 * i, o, 3)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[..., r::2, c::2] for c in (0, 1) for r in (0, 1)]
        return self.conv(torch.cat(corners, 1))


class Binned(nn.Module):
    """Class scores and, for each side of a box, the mean of a distribution over bins."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.box = nn.Sequential(Conv(width, 32, 3), Conv(32, 32, 3), nn.Conv2d(32, 4 * BINS, 1))
        self.kind = nn.Sequential(Conv(width, 32, 3), Conv(32, 32, 3), nn.Conv2d(32, CLASSES, 1))
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        sides = self.box(x).view(b, 4, BINS, h * w).softmax(2)
        sides = (sides * self.bins.view(1, 1, BINS, 1)).sum(2)
        return torch.cat([sides, self.kind(x).flatten(2).sigmoid()], 1)


class Anchored(nn.Module):
    """Boxes, objectness and classes for three anchors at each place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.predict = nn.Conv2d(width, ANCHORS * (5 + CLASSES), 1)

    def forward(self, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        said = self.predict(x).view(b, ANCHORS, -1, h, w).permute(0, 1, 3, 4, 2).sigmoid()
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        places = torch.stack([columns, rows], 2).to(said.dtype)
        boxes = torch.cat([said[..., :2] * 2 - 0.5 + places, (said[..., 2:4] * 2) ** 2], -1)
        return torch.cat([boxes, said[..., 4:]], -1).flatten(1, 3)


class Decoupled(nn.Module):
    """A head for classes and one for boxes and objectness, after a convolution that both read."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = Conv(width, 32)
        self.kinds, self.boxes = (nn.Sequential(Conv(32, 32, 3), Conv(32, 32, 3)) for _ in range(2))
        self.kind, self.box, self.there = (nn.Conv2d(32, n, 1) for n in (CLASSES, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        boxes = self.boxes(x)
        found = [self.box(boxes), self.there(boxes).sigmoid(), self.kind(self.kinds(x)).sigmoid()]
        return torch.cat(found, 1).flatten(2)


class Detector(nn.Module):
    """A backbone with three scales, joined from the coarse to the fine and back, with a head on each."""

    def __init__(self, first: nn.Module, block: Stage, down: Stage, head: Callable[[int], nn.Module]) -> None:
        super().__init__()
        widths = (32, 64, 128)
        self.first = first
        self.stages = nn.ModuleList(
            nn.Sequential(down(i, o), block(o, o)) for i, o in zip((16, *widths), widths, strict=False)
        )
        self.pools = Sppf(128, 128)
        self.up = nn.ModuleList((block(128 + 64, 64), block(64 + 32, 32)))
        self.down = nn.ModuleList((down(32, 32), down(64, 64)))
        self.join = nn.ModuleList((block(32 + 64, 64), block(64 + 128, 128)))
        self.heads = nn.ModuleList(head(width) for width in widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        scales = [self.first(x)]
        for stage in self.stages:
            scales.append(stage(scales[-1]))
        fine, middle, coarse = scales[1], scales[2], self.pools(scales[3])
        middle = self.up[0](torch.cat([interpolate(coarse, scale_factor=2), middle], 1))
        fine = self.up[1](torch.cat([interpolate(middle, scale_factor=2), fine], 1))
        middle = self.join[0](torch.cat([self.down[0](fine), middle], 1))
        coarse = self.join[1](torch.cat([self.down[1](middle), coarse], 1))
        return [head(scale) for head, scale in zip(self.heads, (fine, middle, coarse), strict=True)]


def halved(i: int, o: int) -> nn.Module:
    return Conv(i, o, 3, 2)


def repeated(i: int, o: int) -> nn.Module:
    return nn.Sequential(RepVgg(i, o), RepVgg(o, o))


CONFIGS: dict[str, Callable[[], nn.Module]] = {
    "c2f": lambda: Detector(Conv(3, 16, 3, 2), C2f, halved, Binned),
    "elan": lambda: Detector(Conv(3, 16, 3, 2), Elan, TwoWays, Anchored),
    "repvgg": lambda: Detector(RepVgg(3, 16, 2), repeated, lambda i, o: RepVgg(i, o, 2), Binned),
    "csp": lambda: Detector(Conv(3, 16, 3, 2), Csp, halved, Anchored),
    "decoupled": lambda: Detector(Focus(3, 16), Csp, halved, Decoupled),
}

ABOUT = (
    "They were written for this page, in `benchmarks/zoo/of_yolo.py`, from blocks that such detectors share."
)


def build(name: str) -> nn.Module:
    """The network in float32."""
    return CONFIGS[name]()


def example(name: str, dtype: torch.dtype) -> tuple[Tensor]:
    """An image."""
    pick = torch.Generator().manual_seed(1)
    return (torch.randn(1, 3, 64, 64, generator=pick, dtype=torch.float64).to(dtype),)
