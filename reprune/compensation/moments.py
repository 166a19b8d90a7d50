"""Add up what a least-squares problem needs to know of its rows, in float64."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

_BLOCK = 512
"""Columns whose products are computed at a time: those below the diagonal are not."""


@dataclass
class Moments:
    """Sums over rows of inputs `u` [rows, g, d], missing outputs `r` [rows, g, o] and wanted ones `y`."""

    rows: int
    uu: Tensor  # [g, d, d]
    ur: Tensor  # [g, d, o]
    u: Tensor  # [g, d]
    r: Tensor  # [g, o]
    rr: Tensor  # []
    y: Tensor  # [g, o]
    yy: Tensor  # []

    @classmethod
    def zero(cls, groups: int, inputs: int, outputs: int, device: torch.device) -> Moments:
        """Return the sums over no rows."""

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        return cls(
            rows=0,
            uu=zeros(groups, inputs, inputs),
            ur=zeros(groups, inputs, outputs),
            u=zeros(groups, inputs),
            r=zeros(groups, outputs),
            rr=zeros(),
            y=zeros(groups, outputs),
            yy=zeros(),
        )

    def add(self, u: Tensor, r: Tensor, y: Tensor) -> None:
        """Add rows."""
        self.rows += len(u)
        self.rr += r.square().sum()
        self.yy += y.square().sum()
        u, r, y = (x.transpose(0, 1) for x in (u, r, y))  # [g, rows, ..]
        _add_products(self.uu, u)
        self.ur += u.mT @ r
        self.u += u.sum(1)
        self.r += r.sum(1)
        self.y += y.sum(1)

    def __add__(self, other: Moments) -> Moments:
        return self._with(other, 1)

    def __sub__(self, other: Moments) -> Moments:
        return self._with(other, -1)

    def _with(self, other: Moments, sign: int) -> Moments:
        pairs = {part.name: (getattr(self, part.name), getattr(other, part.name)) for part in fields(self)}
        return Moments(**{name: mine + sign * theirs for name, (mine, theirs) in pairs.items()})

    def mean(self, centred: bool) -> tuple[Tensor, Tensor]:
        """Return the means of `u` and `r`; zeros if the layer cannot add a constant."""
        scale = 1 / max(self.rows, 1) if centred else 0.0
        return self.u * scale, self.r * scale

    def around(self, u: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return `uu`, `ur` and `rr` of the rows less `u` and `r`."""
        mine = self.u - self.rows * u  # the sum of what is left of u
        uu = torch.baddbmm(self.uu, u[:, :, None], self.u[:, None], alpha=-1)
        uu.baddbmm_(mine[:, :, None], u[:, None], alpha=-1)
        ur = self.ur - u[:, :, None] * self.r[:, None] - mine[:, :, None] * r[:, None]
        return uu, ur, self.rr - 2 * (r * self.r).sum() + self.rows * r.square().sum()

    @property
    def wanted(self) -> float:
        """The wanted outputs' sum of squares around their means."""
        return float(self.yy - self.y.square().sum() / max(self.rows, 1))


def _add_products(uu: Tensor, u: Tensor) -> None:
    """Add u' u; it is symmetric, so half of the blocks are enough."""
    for start in range(0, u.shape[-1], _BLOCK):
        stop = min(start + _BLOCK, u.shape[-1])
        part = u[..., start:].mT @ u[..., start:stop]  # [g, d - start, block]
        uu[:, start:, start:stop] += part
        uu[:, start:stop, stop:] += part[:, stop - start :].mT
