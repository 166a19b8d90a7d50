"""CIFAR-10, ResNet-56, pruned while it trains as in the paper: 160 epochs, events until 96, weight decay
5e-4, batch 256.

::

    python examples/cifar10_resnet56.py --data cifar --flops 0.4
    torchrun --nproc-per-node 2 examples/cifar10_resnet56.py --data cifar    # 128 images a process
    python examples/cifar10_resnet56.py --smoke                              # generated images, seconds

`--data DIR` is where torchvision finds `cifar-10-batches-py`. The paper says no more of the schedule
than stands above; the rest is ours: SGD with Nesterov momentum, rate 0.1 along a cosine, an event every
second epoch.
"""

import argparse
from pathlib import Path

import common
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import datasets

import reprune
from reprune.demo.network import Block
from reprune.demo.train import accuracy


class Padded(nn.Module):
    """A shortcut that skips pixels and pads channels with zeros (option A of He et al., 2016)."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.more))


def resnet(blocks: int = 9, width: int = 16) -> nn.Sequential:
    """ResNet of `6 * blocks + 2` layers for [B, 3, 32, 32]."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for outputs in (width, 2 * width, 4 * width):
        for block in range(blocks):
            stride = 2 if outputs > width and not block else 1
            layers.append(Block(inputs, outputs, stride, Padded(outputs - inputs, stride)))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def images(folder: Path | None, train: bool) -> tuple[Tensor, Tensor]:
    """Images [N, 3, 32, 32] of zero mean and unit variance, labels [N]; generated where `folder` is None."""
    if folder is None:
        labels = torch.arange(256) % 10
        patterns = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        return patterns[labels] + torch.randn(256, 3, 32, 32), labels
    data = datasets.CIFAR10(str(folder), train=train, download=False)
    mean, std = torch.tensor([0.4914, 0.4822, 0.4465]), torch.tensor([0.2470, 0.2435, 0.2616])
    pixels = (torch.from_numpy(data.data).float() / 255 - mean) / std
    return pixels.permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)


def augmented(x: Tensor) -> Tensor:
    """Random crops of 32 from 40, half of them mirrored."""
    padded = F.pad(x, (4, 4, 4, 4))
    top, left = torch.randint(9, (2, len(x))).tolist()
    crops = [image[:, a : a + 32, b : b + 32] for image, a, b in zip(padded, top, left, strict=True)]
    crop = torch.stack(crops)
    return torch.where(torch.rand(len(x), 1, 1, 1, device=x.device) < 0.5, crop.flip(3), crop)


def main(arguments: list[str] | None = None) -> None:
    """Train, prune on the way, save the small network."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    options = common.options_of(parser, 0.4, arguments)
    epochs, until, batch = (3, 2, 16) if options.smoke else (160, 96, 256)

    place = common.join()
    rank, size, device = place
    torch.manual_seed(rank)
    train_x, train_y = (t.to(device) for t in images(options.data, train=True))
    test_x, test_y = (t.to(device) for t in images(options.data, train=False))

    torch.manual_seed(0)  # the same network on every process
    model = (resnet(blocks=1, width=8) if options.smoke else resnet()).to(device)
    torch.manual_seed(1 + rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    pruner = reprune.Pruner(
        model, optimizer, test_x[:1], flops=options.flops, interval=1 if options.smoke else 2, until=until
    )
    parallel = place.parallel(model)
    for epoch in range(epochs):
        parallel.train()
        order = torch.randperm(len(train_x), generator=torch.Generator().manual_seed(epoch))
        for part in order[rank::size].split(batch // size):
            loss = F.cross_entropy(parallel(augmented(train_x[part])), train_y[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step()
        if pruner.step():
            parallel = place.parallel(model)
        if rank == 0:
            score = accuracy(model, test_x, test_y)
            print(f"epoch {epoch + 1:3d}  test accuracy {score:.4f}", flush=True)
    place.finish(pruner, options.out / "resnet56-small.safetensors")


if __name__ == "__main__":
    main()
