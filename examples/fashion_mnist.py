"""A residual network of 20 layers on Fashion-MNIST, pruned while it trains.

The images come with the Debian package `dataset-fashion-mnist`; other places are given with ``--data
DIR``::

    python examples/fashion_mnist.py --flops 0.4          # 40 % of the FLOPs are left
    python examples/fashion_mnist.py --dense              # the same training without pruning
    python examples/fashion_mnist.py --smoke              # generated images, seconds

A training that was interrupted goes on when it is started again with the same `--save FILE`.
"""

import argparse
import gzip
import os
import struct
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reprune
from reprune.demo.network import Block
from reprune.demo.train import accuracy


def network(width: int = 16, blocks: int = 3, stride: int = 1) -> nn.Sequential:
    """ResNet of `6 * blocks + 2` layers for [B, 1, 28, 28]; `stride` is that of the first."""
    layers: list[nn.Module] = [
        nn.Conv2d(1, width, 3, stride, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    ]
    inputs = width
    for stage in range(3):
        for block in range(blocks):
            outputs = width * 2**stage
            layers.append(Block(inputs, outputs, 2 if stage and not block else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def read(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images [N, 1, 28, 28] of zero mean and unit variance, labels [N]; `part` is "train" or "t10k"."""
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        _, count, rows, columns = struct.unpack(">4I", file.read(16))
        pixels = torch.frombuffer(bytearray(file.read()), dtype=torch.uint8)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = torch.frombuffer(bytearray(file.read()[8:]), dtype=torch.uint8)
    return (pixels.view(count, 1, rows, columns).float() / 255 - 0.2860) / 0.3530, labels.long()


def generated(count: int) -> tuple[Tensor, Tensor]:
    """Ten blurred patterns under noise, for a rehearsal."""
    labels = torch.arange(count) % 10
    patterns = torch.randn(10, 1, 7, 7, generator=torch.Generator().manual_seed(0))
    images = F.interpolate(patterns, (28, 28), mode="bilinear")[labels]
    return images + 0.3 * torch.randn(count, 1, 28, 28), labels


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shifted by up to two pixels, together, and half of them mirrored."""
    shifts = torch.randint(-2, 3, (2,), generator=generator).tolist()
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, images.flip(3), images).roll(shifts, (2, 3))


def main(arguments: list[str] | None = None) -> None:
    """Train, prune on the way, and say what came out."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), metavar="DIR")
    parser.add_argument("--flops", type=float, default=0.4, help="share left, default %(default)s")
    parser.add_argument("--dense", action="store_true", help="do not prune")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--until", type=int, default=9, help="last epoch with an event")
    parser.add_argument("--images", type=int, default=60000, help="how many to train on")
    parser.add_argument("--mode", choices=("shrink", "mask"), default="shrink")
    parser.add_argument("--ties", choices=("random", "norm"), default="random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the state of the training here")
    parser.add_argument("--smoke", action="store_true", help="generated images, few and small")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.epochs, options.until, options.images = 3, 2, 320
    batch_size = 16 if options.smoke else 128
    torch.manual_seed(options.seed)
    train_images, train_labels = generated(options.images) if options.smoke else read(options.data, "train")
    test_images, test_labels = generated(200) if options.smoke else read(options.data, "t10k")
    train_images, train_labels = train_images[: options.images], train_labels[: options.images]

    model = network(width=8, blocks=1) if options.smoke else network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = options.epochs * -(-len(train_images) // batch_size)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps, pct_start=0.15)
    order = torch.Generator().manual_seed(options.seed)
    pruner = None
    if not options.dense:
        pruner = reprune.Pruner(
            model,
            optimizer,
            test_images[:1],
            flops=options.flops,
            interval=1,
            until=options.until,
            mode=options.mode,
            ties=options.ties,
            seed=options.seed,
        )
    resumable = pruner is not None and options.save is not None
    others = {"scheduler": scheduler, "order": order}
    if resumable and os.path.exists(options.save):
        reprune.load_training(options.save, model, optimizer, pruner, others)

    start = time.perf_counter()
    for epoch in range(pruner.epoch if pruner else 0, options.epochs):
        model.train()
        for batch in torch.randperm(len(train_images), generator=order).split(batch_size):
            loss = F.cross_entropy(model(augmented(train_images[batch], order)), train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        if pruner:
            pruner.step()
        if resumable:
            reprune.save_training(options.save, model, optimizer, pruner, others)
        score = accuracy(model, test_images, test_labels)
        print(f"epoch {epoch + 1:3d}  test accuracy {score:.4f}", flush=True)
    seconds = time.perf_counter() - start
    if pruner:
        plan = pruner.finalize()
        print(pruner.history)
        print(f"FLOPs {plan.flops[0]:,} -> {plan.flops[1]:,}")
    print(f"trained in {seconds:.1f} s, test accuracy {accuracy(model, test_images, test_labels):.4f}")


if __name__ == "__main__":
    main()
