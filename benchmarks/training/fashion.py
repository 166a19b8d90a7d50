"""Training on Fashion-MNIST as examples/fashion_mnist.py does it, on one thread, for the benchmarks."""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reprune
from examples import fashion_mnist


class Spent(NamedTuple):
    """CPU seconds of an epoch."""

    training: float
    event: float


class Fashion:
    """Data and budget that all trainings share."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.images, self.width, self.epochs = options.images, options.width, options.epochs
        self.until, self.side, self.smoke = options.until, options.side, options.smoke
        self.batch, self.stride = (16 if self.smoke else options.batch), options.stride
        if self.smoke:
            parts = [fashion_mnist.generated(self.images), fashion_mnist.generated(100)]
        else:
            parts = [fashion_mnist.read(options.data, part) for part in ("train", "t10k")]
        self.train: tuple[Tensor, Tensor] = (parts[0][0][: self.images], parts[0][1][: self.images])
        self.test: tuple[Tensor, Tensor] = (self.sized(parts[1][0]), parts[1][1])
        self.example = self.test[0][:1]
        torch.set_num_threads(1)

    def __str__(self) -> str:
        return (
            f"ResNet-{8 if self.smoke else 20} with {self.width} to {4 * self.width} channels, its "
            f"first convolution of stride {self.stride}; {self.images:,} training images of {self.side} x "
            f"{self.side}, {self.epochs} epochs, an event after each of the first {self.until}, batches of "
            f"{self.batch}, rate 0.1 along one cycle"
        )

    def sized(self, images: Tensor) -> Tensor:
        """[B, 1, 28, 28], averaged 2 x 2 where the side is 14."""
        return images if self.side == 28 else F.avg_pool2d(images, 2)

    def network(self, seed: int) -> nn.Module:
        """Fresh, its weights from `seed`."""
        torch.manual_seed(seed)
        model = fashion_mnist.network(self.width, blocks=1 if self.smoke else 3, stride=self.stride)
        return model.to(memory_format=torch.channels_last)

    def accuracy(self, model: nn.Module) -> float:
        """On the test images, in percent."""
        return 100 * fashion_mnist.accuracy(model, *self.test)

    def pruner(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, **settings: object
    ) -> reprune.Pruner:
        """One with an event after every epoch."""
        return reprune.Pruner(model, optimizer, self.example, interval=1, until=self.until, **settings)

    def train_epochs(
        self, model: nn.Module, seed: int, make: Callable[..., reprune.Pruner] | None
    ) -> Iterator[tuple[Spent, reprune.Pruner | None]]:
        """Train; `make(model, optimizer)` gives the pruner. One item after each epoch."""
        images = self.train[0]
        steps = self.epochs * -(-len(images) // self.batch)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps, pct_start=0.15)
        generator = torch.Generator().manual_seed(seed)
        pruner = None if make is None else make(model, optimizer)
        for _ in range(self.epochs):
            start = time.process_time()
            model.train()
            for part in torch.randperm(len(images), generator=generator).split(self.batch):
                x = self.sized(fashion_mnist.augmented(images[part], generator))
                loss = F.cross_entropy(model(x), self.train[1][part])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
            trained = time.process_time()
            if pruner is not None:
                pruner.step()
            yield Spent(trained - start, time.process_time() - trained), pruner


def arguments(parser: argparse.ArgumentParser, **defaults: object) -> None:
    """The options that :class:`Fashion` reads."""
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), metavar="DIR")
    parser.add_argument("--images", type=int)
    parser.add_argument("--side", type=int, choices=(14, 28))
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--stride", type=int, default=1, help="of the first convolution")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--until", type=int, help="events come after each epoch up to this one")
    parser.add_argument("--smoke", action="store_true", help="generated images: a rehearsal, not a result")
    parser.set_defaults(**defaults)


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options; few, small and short for a rehearsal."""
    options = parser.parse_args()
    if options.smoke:
        options.images, options.width, options.epochs, options.until = 160, 8, 2, 1
    return options
