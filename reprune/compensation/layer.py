"""Fit one layer: collect its rows from all images, solve, and make its new weight and bias."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..modules.slicing import Slices, in_format_of
from .calls import Call
from .moments import Moments
from .patches import Layout, as_weight, batch_dimension
from .ridge import Fit, fitted

FOLDS, LARGE = 4, 1024
"""Of the cross-validation; half as many for a layer of more than `LARGE` inputs, as these take long."""
LARGEST = 2**31
"""Bytes that the moments of a layer may take."""
_ROWS, _ROWS_PER_INPUT = 8192, 4
"""Rows of a layer: at least so many if there are as many, and so many for each input."""


class LayerProblem:
    """What the calls of one weight lack, as moments for each fold; the images take turns in the folds.

    Where a layer has more positions than rows are needed, the same number is drawn of each image, by a
    generator that the name of the weight seeds.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.folds: list[Moments] = []
        self.same = True
        """Whether no output has differed yet."""
        self.images = 0
        self.reason: str | None = None
        """Why there is no solution, if so."""
        self._device = device
        self._drawn = torch.Generator().manual_seed(zlib.crc32(name.encode()))

    def add(
        self,
        call: Call,
        outputs: tuple[Tensor, Tensor],
        images: range,
        share: float = 1.0,
        probe: tuple[int, ...] = (),
    ) -> None:
        """Add the rows of a call on `images`: its outputs as they should be, and as they are.

        `share`: what part of the rows of the layer this call may give.
        """
        self.images = max(self.images, images.stop)
        wanted, given = outputs
        self.reason = self.reason or _reason_against(call, wanted.shape, given.shape)
        if self.reason is not None:
            return
        lacking = wanted - given
        self.same = self.same and not bool(lacking.any())
        layout = Layout(call, batch_dimension(call, probe))
        lacking, wanted = layout.outputs(lacking), layout.outputs(wanted)
        groups, entries = layout.groups, layout.entries
        least = _ROWS if groups == 1 else _ROWS // 4  # each group is a problem of its own, of few inputs
        rows = share * max(least, _ROWS_PER_INPUT * layout.inputs)
        each = min(layout.positions, max(1, -(-int(rows) // max(entries, 1))))
        if not self.folds:
            width = lacking.shape[-1] // groups
            sizes = (groups, layout.inputs, width)
            self.folds = [Moments.zero(*sizes, device=self._device) for _ in range(_folds(layout.inputs))]
        image = torch.arange(entries) * len(images) // max(entries, 1) + images.start
        for number, fold in enumerate(self.folds):
            mine = (image % len(self.folds) == number).nonzero()[:, 0].to(lacking.device)
            if not len(mine):
                continue
            positions = torch.arange(layout.positions)
            if each < layout.positions:
                positions = torch.randperm(layout.positions, generator=self._drawn)[:each].sort().values
            for some, part in layout.pieces(mine, positions.to(lacking.device)):
                r, y = (x[some][:, part].double().flatten(0, 1) for x in (lacking, wanted))
                u = layout.rows(some, part)
                fold.add(*(x.reshape(len(u), groups, -1).to(self._device) for x in (u, r, y)))

    def solved(self, centred: bool, ridge: float | None) -> Fit:
        """Return the fit."""
        return fitted(self.folds, centred, ridge)


def new_values(fit: Fit, call: Call, with_bias: bool) -> dict[str, Tensor]:
    """Return {name: tensor} of the weight and the bias of `call` that change."""
    new = {}
    parts = {"weight": fit.weight, "bias": fit.bias if with_bias else None}
    for argument, added in parts.items():
        if added is not None:
            name = call.names[argument]
            old = call.arguments[argument]
            more = as_weight(added, call) if argument == "weight" else added.flatten()
            new[name] = in_format_of(old, (old.double() + more.to(old.device)).to(old.dtype))
    return new


def kept_channels(call: Call, slices: Slices) -> Tensor | None:
    """Return which output channels of a call of the dense network are kept; None for all."""
    kept = slices.get(call.name, {})
    if not call.is_transposed:
        return torch.from_numpy(np.asarray(kept[0])) if 0 in kept else None
    if not kept:
        return None
    width = call.weight.shape[1]
    groups = np.unique(kept[0] // call.inputs) if 0 in kept else np.arange(call.groups)
    columns = kept.get(1, np.arange(width))
    return torch.from_numpy((groups[:, None] * width + columns).ravel())


def wanted_output(call: Call, slices: Slices) -> tuple[Tensor, Tensor]:
    """Return the output of a call of the dense network, and what of it the small one should have."""
    whole = call.run({})
    kept = kept_channels(call, slices)
    return whole, whole if kept is None else whole.index_select(call.channels, kept.to(whole.device))


def moments_of(call: Call) -> int:
    """Return the bytes of the moments of a layer, with those that the solution needs."""
    inputs = call.inputs * (int(np.prod(call.weight.shape[2:])) if call.dimensions else 1)
    return (_folds(inputs) + 3) * 8 * call.groups * inputs**2


def _folds(inputs: int) -> int:
    return FOLDS if inputs <= LARGE else FOLDS // 2


def _reason_against(small: Call, wanted: Sequence[int], given: Sequence[int]) -> str | None:
    """Return why the outputs of a call cannot be compared, if so."""
    if small.dimensions and small.input.dim() != small.dimensions + 2:
        return "it runs without a batch"
    if tuple(wanted) != tuple(given):
        return "its outputs have another shape than those of the dense network"
    return None
