"""Train for the demo: plain SGD, small random shifts, a learning rate that warms up and decays."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import Digits

BATCH, TEST_BATCH = 64, 250
SHIFT = 2  # pixels, in both directions
WARM_UP = 0.2  # part of the steps in which the learning rate rises


def optimizer_for(model: nn.Module) -> torch.optim.SGD:
    """Return the optimizer of the demo; `fit` sets its learning rate."""
    return torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9, nesterov=True, weight_decay=5e-4)


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    digits: Digits,
    *,
    epochs: int,
    peak: float,
    seed: int,
    after_epoch: Callable[[], object] | None = None,
    progress: Callable[[int, int], None],
) -> None:
    """Train in place for `epochs` passes with `peak` as the largest learning rate.

    `after_epoch` is called at the end of each epoch, for a pruner's `step`. `progress` is called with (steps
    done, steps).
    """
    generator = torch.Generator().manual_seed(seed)
    count = len(digits.train_images)
    steps = epochs * -(-count // BATCH)
    done = 0
    for _ in range(epochs):
        model.train()
        order = torch.randperm(count, generator=generator)
        for start in range(0, count, BATCH):
            batch = order[start : start + BATCH]
            for group in optimizer.param_groups:
                group["lr"] = peak * _rise_and_fall((done + 1) / (steps + 1))
            images = _shifted(digits.train_images[batch], generator)
            loss = F.cross_entropy(model(images), digits.train_labels[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            done += 1
            progress(done, steps)
        if after_epoch is not None:
            after_epoch()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the fraction of `images` [N, C, H, W] classified as their `labels` [N], in 0..1."""
    model.eval()
    hits = 0
    with torch.inference_mode():
        for start in range(0, len(images), TEST_BATCH):
            part = slice(start, start + TEST_BATCH)
            hits += int((model(images[part]).argmax(1) == labels[part]).sum())
    return hits / len(labels)


def _rise_and_fall(t: float) -> float:  # 0..1 -> 0..1
    return t / WARM_UP if t < WARM_UP else (1 - t) / (1 - WARM_UP)


def _shifted(
    images: Tensor, generator: torch.Generator
) -> Tensor:  # [B, 1, H, W] -> same, each by its own offset
    B, _, H, W = images.shape
    background = float(images.min())
    padded = F.pad(images, (SHIFT, SHIFT, SHIFT, SHIFT), value=background)
    offsets = torch.randint(0, 2 * SHIFT + 1, (2, B, 1, 1), generator=generator)
    rows = offsets[0] + torch.arange(H).view(1, H, 1)
    columns = offsets[1] + torch.arange(W).view(1, 1, W)
    return padded[torch.arange(B).view(B, 1, 1), 0, rows, columns].unsqueeze(1)
