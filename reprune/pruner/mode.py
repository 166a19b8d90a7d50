"""Define what the two modes have in common: how the current channels are enforced.

Both get the store, which has every value; they differ only in what the model holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from ..modules.sharded import Piece
from ..modules.slicing import Positions
from .compiled import CompiledCode
from .store import Layout, Store
from .structure import Structure
from .tracked import Tracked


class Present(NamedTuple):
    """What a process stores of one tensor: all, or of a sharded one its part."""

    values: Tensor
    """At the positions that are present."""
    size: tuple[int, ...]
    """At full size."""
    where: Positions


class Mode(Protocol):
    """A way to enforce a layout."""

    small: bool
    """Whether tensors have the size of the present channels."""
    every: bool
    """Whether every state of the optimizer has to be sliceable."""

    @classmethod
    def of(cls, structure: Structure, model: nn.Module) -> Mode:
        """Return the mode for `model`; raise `ValueError` if it is impossible."""

    @staticmethod
    def check_wrappers(around: Collection[str]) -> None:
        """Raise `ValueError` if a model in these wrappers cannot be pruned in this mode."""

    def check(self, tracked: Tracked, layout: Layout) -> None:
        """Raise `ValueError` if `tracked` cannot follow. Called at the end of every epoch."""

    def check_values(self, tracked: Tracked, layout: Layout) -> None:
        """Raise `ValueError` if `layout` does not hold any more. Called before an event."""

    def shape(self, full: tuple[int, ...], where: Positions) -> tuple[int, ...]:
        """Return the shape in the model of a tensor of shape `full`."""

    def present(self, tensor: Tensor, piece: Piece, where: Positions) -> Present:
        """Return what this process stores of `tensor`, of which it has the `piece` at full size."""

    def exchange(
        self, tracked: Tracked, store: Store, before: Layout, after: Layout, widths: Mapping[str, int]
    ) -> Callable[[], None]:
        """Prepare to change the tensors in `after` from one layout to the other; return what does it.

        Values come from the store. `widths`: the channels of norms without tensors, {name: channels}.
        """

    def holder(self, tracked: Tracked, layout: Layout) -> Callable[[], None]:
        """Return a function to call after every optimizer step, so that `layout` holds."""

    def changed(self, compiled: CompiledCode) -> None:
        """Update compiled code after an event."""

    def shrunk(
        self,
        tracked: Tracked,
        layout: Layout,
        absorb: Callable[[bool], None],
        store: Store,
        widths: Mapping[str, int],
    ) -> Mode:
        """Shrink tensors to `layout` and norms to `widths` for good, and return the mode for that."""
