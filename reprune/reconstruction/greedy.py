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


def picks(consumers: Sequence[tuple[Tensor, Tensor]]) -> Picks:
    """Pick all channels one after the other, each time the one that explains most.

    A consumer is (C, H): the covariance of its inputs [A, A], to whose diagonal a small ridge is added, and
    the products of its weights [A, A]. With `E` the covariance of the channels given those that are picked,
    the variance of its outputs that those cannot explain linearly is `tr(H E)`. To pick j lowers it by
    `sum_i E_ij (H E)_ij / E_jj`, and then E loses `E_:j E_:j' / E_jj`. The gain of a pick is the sum of that
    over the consumers, each in units of its `tr(H C)`; among equal gains the first channel is picked.

    It takes O(A^2) for each pick and consumer.
    """
    size = consumers[0][0].shape[0]
    parts = []
    for covariance, weights in consumers:
        E = covariance.clone()
        E.diagonal().add_(RIDGE * covariance.diagonal().mean())
        F = weights @ E
        total = float(F.diagonal().sum())
        if total > 0:  # else its inputs are constant, or its weights 0
            parts.append((E, F / total))
    order, gains = [], []
    here = torch.arange(size, device=consumers[0][0].device)  # the channel of each row
    left = torch.ones(size, dtype=torch.bool, device=here.device)
    for _ in range(size):
        if int(left.sum()) <= _CROWDED * len(here):  # the rows of what was picked are zeros in E
            at = left.nonzero()[:, 0]
            parts = [(E[at][:, at], F[at][:, at]) for E, F in parts]
            here, left = here[at], left[at]
        gain = torch.zeros(len(here), dtype=torch.float64, device=here.device)
        for E, F in parts:
            gain += torch.einsum("ij,ij->j", E, F) / E.diagonal().clamp_min(1e-300)
        j = int(gain.masked_fill(~left, -torch.inf).argmax())
        order.append(int(here[j]))
        gains.append(float(gain[j]))
        left[j] = False
        for E, F in parts:
            column = E[:, j].clone()
            share = column / column[j]
            F.addr_(F[:, j].clone(), share, alpha=-1)
            E.addr_(column, share, alpha=-1)
            E[:, j] = E[j] = 0
    return Picks(np.array(order), np.array(gains))
