"""Add up what a consumer's weight does to the channels of a group, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..aliases import Ints
from ..compensation.calls import Call

_ELEMENTS = 2**22
"""Of a piece that is converted to float64 at a time."""


class Moments:
    """Sums over positions of what one consumer takes from the atoms of a group, in two halves of the images.

    All taps of an atom count alike, each around its own mean: a bias makes up for that.
    """

    def __init__(self, columns: Ints, call: Call) -> None:
        """Begin with no rows; `columns` [A, taps] are the input channels of each atom, -1 for none."""
        device = call.input.device
        self._columns = torch.from_numpy(columns).to(device)
        atoms, taps = columns.shape
        self._products = torch.zeros(2, atoms, atoms, dtype=torch.float64, device=device)
        self._sums = torch.zeros(2, taps, atoms, dtype=torch.float64, device=device)
        self._origin: Tensor | None = None
        self._rows = [0, 0]
        self.weights = self._products_of_weights(call)
        """[A, A]: the products of the atoms' weights, summed over outputs, sides and taps."""

    def add(self, x: Tensor, half: int) -> None:
        """Add positions of the input, [rows, I], of images of one half, 0 or 1."""
        for part in torch.split(x, max(1, _ELEMENTS // self._columns.numel())):
            u = _picked(part.T, self._columns).permute(2, 1, 0).double()  # [rows, taps, A]
            if self._origin is None:  # so that large means cancel nothing
                self._origin = u.mean(0)
            u = u - self._origin
            self._sums[half] += u.sum(0)
            u = u.flatten(0, 1)
            self._products[half].addmm_(u.T, u)
        self._rows[half] += len(x)

    def covariance(self) -> Tensor:
        """Return [A, A], summed over taps."""
        return _covariance(self._products.sum(0), self._sums.sum(0), sum(self._rows))

    def variance(self) -> float:
        """Return that of the consumer's outputs, summed over them, as far as it comes from these inputs.

        Sides of a kernel and taps count as if they had nothing to do with each other.
        """
        taps = self._columns.shape[1]
        return float((self.weights * self.covariance()).sum().clamp_min(0)) / taps

    def shrunk(self) -> Tensor:
        """Return the covariance [A, A] on its way to a multiple of the identity, as far as it is uncertain.

        Few images make channels look dependent that are not: what is left of 1,280 channels at one position
        each is nothing after 256 of 256 images. With C the covariance, m the mean of its diagonal and D the
        difference between those of both halves of the images, it is (1 - s) C + s m I, with
        s = n1 n2 / n^2 |D|^2 / |C - m I|^2, at most 1. Source: Ledoit and Wolf, "A well-conditioned estimator
        for large-dimensional covariance matrices" (Journal of Multivariate Analysis, 2004), where the
        variance of C comes from single rows; those of one image are not independent.
        """
        whole = self.covariance()
        if not all(self._rows):
            return whole
        of_halves = zip(self._products, self._sums, self._rows, strict=True)
        first, second = (_covariance(*half) for half in of_halves)
        parts = self._rows[0] * self._rows[1] / sum(self._rows) ** 2
        target = torch.eye(len(whole), dtype=whole.dtype, device=whole.device) * whole.diagonal().mean()
        off = (whole - target).square().sum()
        share = (parts * (first - second).square().sum() / off.clamp_min(1e-300)).clamp_max(1)
        return torch.lerp(whole, target, share)

    def _products_of_weights(self, call: Call) -> Tensor:
        by_input = _by_input(call)
        total = torch.zeros_like(self._products[0])
        for columns in torch.split(self._columns, max(1, _ELEMENTS // by_input.shape[1]), dim=1):
            w = _picked(by_input, columns).double().flatten(1)
            total.addmm_(w, w.T)
        return total


def _covariance(products: Tensor, sums: Tensor, rows: int) -> Tensor:
    """Return [A, A] of sums over `rows`: `products` [A, A] and `sums` [taps, A]."""
    means = sums / rows
    return products / rows - means.T @ means


def _picked(x: Tensor, columns: Tensor) -> Tensor:
    """Return [A, taps, ...]: the rows `columns` of `x`, zeros for -1."""
    found = x[columns.clamp_min(0)]
    missing = columns < 0
    return found.masked_fill(missing[..., None], 0) if bool(missing.any()) else found


def _by_input(call: Call) -> Tensor:
    """Return the weight of `call` as [I, outputs * sides], with the outputs of the input's group."""
    weight = call.weight
    if call.is_transposed:
        return weight.flatten(1)
    outputs, inputs = weight.shape[0] // call.groups, weight.shape[1]
    weight = weight.reshape(call.groups, outputs, inputs, -1)  # of each group, and the sides of a kernel
    return weight.transpose(1, 2).flatten(2).flatten(0, 1)


def positions(x: Tensor, channels: int) -> Tensor:
    """Return an input whose channels lie along the dimension `channels` as [entries, positions, I]."""
    if channels == 1:  # of a convolution
        return x.flatten(2).transpose(1, 2)
    return x.reshape(x.shape[0], -1, x.shape[-1])


def drawn(x: Tensor, each: int, first: int, order: Tensor) -> Iterator[Tensor]:
    """Yield `each` rows [.., I] of every entry of `x` [entries, positions, I].

    The entry with number k takes those that stand at k * each and after it in `order` [positions], as in a
    circle; `first` is the number of the first one here.
    """
    if each >= x.shape[1]:
        yield x.reshape(-1, x.shape[-1])
        return
    numbers = (torch.arange(first, first + x.shape[0])[:, None] * each + torch.arange(each)) % len(order)
    chosen = order[numbers].to(x.device)[..., None].expand(-1, -1, x.shape[-1])
    yield x.gather(1, chosen).reshape(-1, x.shape[-1])
