"""Schedule events and regrowth (REPrune's Algorithm 2, CHEX's cosine)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..arguments import integer, number, shown


@dataclass(frozen=True)
class Schedule:
    """An event every `interval` epochs up to `until`, each regrowing a fraction that falls to 0."""

    interval: int
    until: int
    regrow: float

    def __post_init__(self) -> None:
        for name, value in (("interval", self.interval), ("until", self.until)):
            try:
                object.__setattr__(self, name, integer(value, name, 1))
            except (TypeError, ValueError):
                raise ValueError(
                    f"{name}: expected a number of epochs, 1 or more; got {shown(value)}"
                ) from None
        if self.until < self.interval:
            raise ValueError(
                f"until: expected at least interval={self.interval}, or no event ever comes; got {self.until}"
            )
        object.__setattr__(self, "regrow", number(self.regrow, "regrow", "a number from 0 to 1"))
        if not 0 <= self.regrow <= 1:
            raise ValueError(f"regrow: expected a number from 0 to 1; got {self.regrow!r}")

    @property
    def last(self) -> int:
        """The epoch after which the structure is final."""
        return self.until - self.until % self.interval

    def fires(self, epoch: int) -> bool:
        """Return whether there is an event at the end of `epoch`, counted from 1."""
        return epoch % self.interval == 0 and epoch <= self.last

    def share(self, epoch: int) -> float:
        """Return the fraction of each layer to regrow at the end of `epoch`, 0 at the last event.

        It is `delta_t = delta_0 (1 + cos(pi t / until)) / 2`.
        """
        if epoch >= self.last:
            return 0.0
        return self.regrow * (1 + math.cos(math.pi * epoch / self.until)) / 2
