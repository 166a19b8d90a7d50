"""Implement the mask mode: zeros in tensors of full size."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor, nn

from ..aliases import Ints
from ..modules.sharded import Piece, is_sharded, local, part_of
from ..modules.slicing import Positions, named_tensors, slice_tensor, write
from ..modules.wrappers import named_parameters
from .compiled import CompiledCode
from .mode import Present
from .shrink import ShrinkMode
from .store import Layout, Store
from .structure import Structure
from .tracked import Tracked
from .zeros import missing, zeroed


class MaskMode:
    """Tensors keep their size; every position of a removed channel is zero.

    Along the dimensions in `spared` {tensor: dimensions} a tensor keeps its values; zeros in other tensors
    remove the channels.
    """

    small = False
    every = False

    def __init__(self, spared: Mapping[str, set[int]]) -> None:
        self._spared = spared

    @classmethod
    def of(cls, structure: Structure, model: nn.Module) -> MaskMode:
        """Return the mode; raise `ValueError` if zeros do not take channels out of `model`.

        A sharded model cannot be run on the example by one process to look. Its weights are not computed, so
        that zeros in them are zeros in what it uses.
        """
        if is_sharded(model):
            return cls({})
        mode = cls(structure.spared(model))
        structure.check_zeros(model, mode.zeros)
        return mode

    @staticmethod
    def check_wrappers(around: Collection[str]) -> None:
        """Accept any wrapper: the tensors stay."""

    def check(self, tracked: Tracked, layout: Layout) -> None:
        """Accept anything: no tensor changes its size before the end."""

    def zeros(self, layout: Layout) -> dict[str, dict[int, Ints]]:
        """Return `layout` without the dimensions along which nothing is set to zero."""
        return {
            name: {dim: kept for dim, kept in where.items() if dim not in self._spared.get(name, ())}
            for name, where in layout.items()
        }

    def shape(self, full: tuple[int, ...], where: Positions) -> tuple[int, ...]:
        return full

    def present(self, tensor: Tensor, piece: Piece, where: Positions) -> Present:
        there = piece.positions(where)
        return Present(slice_tensor(local(tensor), there), piece.size(), there)

    def exchange(
        self, tracked: Tracked, store: Store, before: Layout, after: Layout, widths: Mapping[str, int]
    ) -> Callable[[], None]:
        zeros = self.zeros(after)

        def fill(tensor: Tensor, key: str, where: Positions, zeros: Positions) -> None:
            mine, there = part_of(tensor, where)
            write(mine, there, store.take(key, there, mine.device))
            for dim, gone in missing(mine.shape, part_of(tensor, zeros)[1]):
                mine.index_fill_(dim, torch.from_numpy(gone).to(mine.device), 0)

        @torch.no_grad()
        def change() -> None:
            for prefix, model in tracked.models():
                tensors = named_tensors(model)
                for name, where in after.items():
                    tensor = tensors[name]
                    fill(tensor, f"{prefix}/{name}", where, zeros[name])
                    if tensor.grad is not None:
                        grad, there = part_of(tensor.grad, where)
                        grad.copy_(zeroed(zeroed(grad, part_of(tensor.grad, before[name])[1]), there))
            for entry in tracked.states(after, every=False):
                fill(entry.value, entry.key, after[entry.name], after[entry.name])

        return change

    def holder(self, tracked: Tracked, layout: Layout) -> Callable[[], None]:
        """Return a function that zeroes removed channels in the model's parameters."""
        parameters = named_parameters(tracked.model)
        work = [
            (parameters[name], dim, torch.from_numpy(gone).to(parameters[name].device))
            for name, where in self.zeros(layout).items()
            if name in parameters
            for mine, there in [part_of(parameters[name], where)]
            for dim, gone in missing(mine.shape, there)
        ]

        @torch.no_grad()
        def hold() -> None:
            for parameter, dim, index in work:
                local(parameter).index_fill_(dim, index, 0)

        return hold

    def changed(self, compiled: CompiledCode) -> None:
        """Do nothing: shapes are the same."""

    def check_values(self, tracked: Tracked, layout: Layout) -> None:
        """Raise `ValueError` if a parameter is not zero at a removed channel."""
        parameters = named_parameters(tracked.model)
        for name, where in self.zeros(layout).items():
            if name in parameters:
                mine, there = part_of(parameters[name], where)
                for dim, gone in missing(mine.shape, there):
                    index = torch.from_numpy(gone).to(mine.device)
                    if bool(mine.index_select(dim, index).any()):
                        raise ValueError(
                            f"model: it was changed outside the pruner: dropped channels of {name} "
                            "are not zero any more; load_state_dict of the pruner goes before that of the "
                            "model"
                        )

    def shrunk(
        self,
        tracked: Tracked,
        layout: Layout,
        absorb: Callable[[bool], None],
        store: Store,
        widths: Mapping[str, int],
    ) -> ShrinkMode:
        tracked.check_hooks(layout)
        obstacle = tracked.state_obstacle(layout)
        if obstacle:
            warnings.warn(
                f"finalize: the optimizer's state could not be cut ({obstacle}); it starts anew", stacklevel=4
            )
        absorb(True)
        small = ShrinkMode(restart=bool(obstacle))
        small.exchange(tracked, store, {name: {} for name in layout}, layout, widths)()
        return ShrinkMode()
