"""Order channels by what they explain of the rest, greedily."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..aliases import Ints

RIDGE = 1e-4
"""Added to the variance of each channel, in units of the mean: few images make channels look dependent."""
_CROWDED = 0.75
"""Fraction of the channels in a matrix at which those that were picked are taken out of it."""


class Picks(NamedTuple):
    """All channels of a group in the order in which they were picked."""

    order: Ints
    """[A] positions in the group."""
    gains: npt.NDArray[np.float64]
    """[A] the part of the consumers' outputs that each pick explained beyond those before it."""


class _Consumer:
    """What is not explained yet of one consumer.

    `E` [A, A] is the covariance of the channels given those that are picked, `gain` [A] what a pick gains.
    """

    def __init__(self, covariance: Tensor, weights: Tensor, worth: float) -> None:
        self.E = covariance.clone()
        self.E.diagonal().add_(RIDGE * covariance.diagonal().mean())
        product = weights @ self.E
        total = product.diagonal().sum()
        self.varies = bool(total > 0)
        self._H = weights * (worth / total)
        self._gained = (self.E * product).sum(0) * (worth / total)  # diagonal of E H E

    @property
    def gain(self) -> Tensor:
        return self._gained / self.E.diagonal().clamp_min(1e-300)

    def pick(self, j: int) -> None:
        """Take out what the channel j explains; its row and column become zeros."""
        column = self.E[:, j].clone()
        share = column / column[j]
        weighed = self._H @ column
        self._gained -= share * (2 * (self.E @ weighed) - share * (column @ weighed))
        self.E.addr_(column, share, alpha=-1)
        self.E[:, j] = self.E[j] = self._gained[j] = 0

    def keep(self, at: Tensor) -> None:
        """Go on with the rows `at`; the others have to be zeros."""
        self.E, self._H, self._gained = self.E[at][:, at], self._H[at][:, at], self._gained[at]


def picks(consumers: Sequence[tuple[Tensor, Tensor]], worths: Sequence[float] | None = None) -> Picks:
    """Pick all channels one after the other, each time the one that explains most.

    A consumer is (C, H): the covariance of its inputs [A, A], to whose diagonal a small ridge is added, and
    the products of its weights [A, A]. With `E` the covariance of the channels given those that are picked,
    the variance of its outputs that those cannot explain linearly is `tr(H E)`. To pick j lowers it by
    `(E H E)_jj / E_jj`, and then E loses `E_:j E_:j' / E_jj`. The gain of a pick is the sum of that over the
    consumers, each in units of its `tr(H C)` and times its worth (default: 1); among equal gains the first
    channel is picked.

    It takes O(A^2) for each pick and consumer.
    """
    size = consumers[0][0].shape[0]
    worths = [1.0] * len(consumers) if worths is None else worths
    all_of_them = [_Consumer(*moments, worth) for moments, worth in zip(consumers, worths, strict=True)]
    left = [one for one in all_of_them if one.varies]  # else it says nothing
    order, gains = [], []
    here = torch.arange(size, device=consumers[0][0].device)  # the channel of each row
    open_ = torch.ones(size, dtype=torch.bool, device=here.device)
    for done in range(size):
        if size - done <= _CROWDED * len(here):
            at = open_.nonzero()[:, 0]
            here, open_ = here[at], open_[at]
            for one in left:
                one.keep(at)
        gain = torch.zeros(len(here), dtype=torch.float64, device=here.device)
        for one in left:
            gain += one.gain
        j = int(gain.masked_fill(~open_, -torch.inf).argmax())
        order.append(int(here[j]))
        gains.append(float(gain[j]))
        open_[j] = False
        for one in left:
            one.pick(j)
    return Picks(np.array(order), np.array(gains))
