"""How it is enforced which channels are there: what the two modes have in common.

Both are given the store, which has every value; they differ only in what stands in the model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from torch import Tensor, nn

from .compiled import CompiledCode
from .store import Layout, Positions, Store
from .structure import Structure
from .tracked import Tracked


class Mode(Protocol):
    """A way to make a layout hold."""

    small: bool
    """Tensors have the size of the channels that are there."""
    every: bool
    """Every state of the optimizer has to be one that can be cut."""

    @classmethod
    def of(cls, structure: Structure, model: nn.Module) -> Mode:
        """The mode for `model`; `ValueError` if it cannot be."""

    @staticmethod
    def check_wrappers(around: Collection[str]) -> None:
        """Raise `ValueError` if a model in these wrappers cannot be pruned so."""

    def check(self, tracked: Tracked, layout: Layout) -> None:
        """Raise `ValueError` if `tracked` cannot follow; called at the end of every epoch."""

    def check_values(self, tracked: Tracked, layout: Layout) -> None:
        """Raise `ValueError` if `layout` does not hold any more; called before an event."""

    def shape(self, full: tuple[int, ...], where: Positions) -> tuple[int, ...]:
        """Shape in the model of a tensor of shape `full`."""

    def live(self, tensor: Tensor, where: Positions) -> Tensor:
        """The values at the positions that are there."""

    def exchange(self, tracked: Tracked, store: Store, before: Layout, after: Layout) -> Callable[[], None]:
        """Make ready to change the tensors named in `after` from one layout to the other, with values of the
        store; what is returned does it."""

    def holder(self, tracked: Tracked, layout: Layout) -> Callable[[], None]:
        """What has to be called after every step of the optimizer for `layout` to hold."""

    def changed(self, compiled: CompiledCode) -> None:
        """Called after an event."""

    def shrunk(self, tracked: Tracked, layout: Layout, absorb: Callable[[bool], None], store: Store) -> Mode:
        """Let tensors have the size of `layout` from now on, and return the mode that says so."""
