"""Fit one layer: collect its rows from all images, solve, and make its new weight and bias."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..modules.slicing import Slices, in_format_of
from .calls import Call
from .patches import Layout, as_weight, batch_dimension
from .ridge import Fit, fitted
from .rows import Rows

FOLDS, LARGE = 4, 1024
"""Of the cross-validation; half as many where inputs and rows are more than `LARGE`, as that takes long."""
LARGEST = 2**31
"""Bytes that the equations of a layer may take."""
_ROWS, _ROWS_PER_INPUT = 8192, 4
"""Rows of a layer: at least so many if there are as many, and so many for each input."""


class LayerProblem:
    """What the calls of one weight lack, as rows in folds; the images take turns in the folds.

    Where a layer has more positions than rows are needed, the same number is drawn of each image, by a
    generator that the name of the weight seeds.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.rows: Rows | None = None
        self._folds = 0
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
        if not bool(torch.isfinite(lacking).all()):
            self.reason = "it takes or gives NaN or infinity"
            return
        self.same = self.same and not bool(lacking.any())
        layout = Layout(call, batch_dimension(call, probe))
        lacking, wanted = layout.outputs(lacking), layout.outputs(wanted)
        groups, entries = layout.groups, layout.entries
        least = _ROWS if groups == 1 else _ROWS // 4  # each group is a problem of its own, of few inputs
        rows = share * max(least, _ROWS_PER_INPUT * layout.inputs)
        each = min(layout.positions, max(1, -(-int(rows) // max(entries, 1))))
        if self.rows is None:
            self._folds = folds_of(layout.inputs, int(each * entries / share))
            self.rows = Rows(self._folds, groups, layout.inputs, lacking.shape[-1] // groups, self._device)
        image = torch.arange(entries) * len(images) // max(entries, 1) + images.start
        for fold in range(self._folds):
            mine = (image % self._folds == fold).nonzero()[:, 0].to(lacking.device)
            if not len(mine):
                continue
            positions = torch.arange(layout.positions)
            if each < layout.positions:
                positions = torch.randperm(layout.positions, generator=self._drawn)[:each].sort().values
            for some, part in layout.pieces(mine, positions.to(lacking.device)):
                r, y = (x[some][:, part].double().flatten(0, 1) for x in (lacking, wanted))
                u = layout.rows(some, part)
                self.rows.add(fold, *(x.reshape(len(u), groups, -1) for x in (u, r, y)))

    def solved(self, centred: bool, ridge: float | None, eps: float) -> Fit:
        """Return the fit of outputs of precision `eps`; there has to be a row."""
        assert self.rows is not None
        return fitted(self.rows.problem(centred), centred, ridge, eps)


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


def memory_of(call: Call, share: float) -> int:
    """Return the bytes that the equations of a layer take, with those that the solution needs.

    `share`: the part of all images that `call` runs on.
    """
    groups, inputs = call.groups, call.inputs * math.prod(call.weight.shape[2:])
    sums = (folds_of(inputs, inputs) + 3) * 8 * groups * inputs**2
    if sums <= LARGEST or call.lacks_batch:
        return sums
    layout = Layout(call, 0)
    rows = int(layout.positions * layout.entries / share)
    outputs = call.weight.numel() // (groups * inputs)
    few = 8 * groups * (rows * (2 * inputs + 4 * outputs + 4 * rows) + 3 * inputs * outputs)
    return min(sums, few) if rows <= inputs else sums


def folds_of(inputs: int, rows: int) -> int:
    """Return the folds of the cross-validation of a layer."""
    return FOLDS if min(inputs, rows) <= LARGE else FOLDS // 2


def _reason_against(small: Call, wanted: Sequence[int], given: Sequence[int]) -> str | None:
    """Return why the outputs of a call cannot be compared, if so."""
    if small.lacks_batch:
        return "it runs without a batch"
    if tuple(wanted) != tuple(given):
        return "its outputs have another shape than those of the dense network"
    return None
