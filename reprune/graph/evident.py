"""Tell of which calls it is evident that a slice gives the same: by what the operation is, without values.

Of what meets in an element of the result the same places stay. Of elementwise operations PyTorch says what
meets; a convolution sums over what its kernels are multiplied with, and where these are zero a removed
channel may have any value; pools and means look at one channel at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..aliases import Ints
from .computed import Computed
from .rules import SPATIAL, is_pointwise
from .rules_shape import reduced
from .state import FREE, Call, Dim

Mask = npt.NDArray[np.bool_]
Pairs = list[tuple[Dim, Dim]]
"""Dimensions of one size of which the same places have to stay."""

BATCH_NORMS = frozenset(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training".split()
)
_MEANS = frozenset(("mean", "sum", "amax", "amin"))


class Staying:
    """Which positions a slice has, by `stays` [labels]; the same few arrays of labels are in many calls."""

    def __init__(self, stays: Mask) -> None:
        self.stays = np.append(stays, True)  # the last entry is for FIXED positions
        self._masks: dict[int, Mask] = {}
        self._alike: dict[tuple[int, int], bool] = {}

    def mask(self, ids: Ints) -> Mask:
        """Return which of the labels `ids` stay."""
        mask = self._masks.get(id(ids))
        if mask is None:
            mask = self._masks[id(ids)] = self.stays[ids]
        return mask

    def along(self, dim: Dim, size: int) -> Mask:
        """Return which positions of a dimension of this `size` stay; where it has no labels, all."""
        return self.mask(dim) if isinstance(dim, np.ndarray) else np.ones(size, dtype=bool)

    def alike(self, a: Dim, b: Dim) -> bool:
        """Return whether the same positions stay of two dimensions of one size."""
        if a is b:
            return True
        key = (id(a), id(b))
        if key not in self._alike:
            masks = [self.mask(dim) for dim in (a, b) if isinstance(dim, np.ndarray)]
            alike = masks[0].tobytes() == masks[1].tobytes() if len(masks) == 2 else bool(np.all(masks))
            self._alike[key] = alike
        return self._alike[key]


def is_evident(full: Computed, small: Computed, staying: Staying) -> bool:
    """Return whether the slice's call, `small`, evidently gives what stays of the `full` model's.

    Both have the same numbers among their arguments.
    """
    pairs = _pairs(full, small, staying)
    return pairs is not None and all(staying.alike(a, b) for a, b in pairs)


def _pairs(full: Computed, small: Computed, staying: Staying) -> Pairs | None:
    """Return what has to stay alike; None where that does not suffice."""
    call, name = full.call, full.name
    if name in BATCH_NORMS:
        return _of_batch_norm(full)
    if name in ("mm", "addmm"):
        return _of_product(full)
    if name == "convolution":
        return _of_convolution(call, full, small, staying)
    if name == "cat":
        return _of_parts(call, full, staying)
    if name in SPATIAL:
        return _of_pool(full)
    if name in _MEANS:
        return _of_mean(call, full)
    return _of_elements(full) if is_pointwise(call) and len(full.outs) == 1 else None


def _of_batch_norm(full: Computed) -> Pairs:
    channels = full.outs[0].state.dims[1]
    pairs = [(full.tensors[0].state.dims[1], channels)]
    return pairs + [(given.state.dims[0], channels) for given in full.tensors[1:]]


def _of_product(full: Computed) -> Pairs | None:
    out = full.outs[0]
    *added, one, other = full.tensors
    if any(len(given.shape) != 1 or given.shape[0] == 1 < out.shape[1] for given in added):
        return None
    pairs = [(one.state.dims[1], other.state.dims[0]), (one.state.dims[0], out.state.dims[0])]
    return pairs + [(given.state.dims[-1], out.state.dims[1]) for given in (*added, other)]


def _of_convolution(call: Call, full: Computed, small: Computed, staying: Staying) -> Pairs | None:
    images, kernel, *bias = (given.state.dims for given in full.tensors)
    channels = len(kernel) - 1  # from the end
    incoming, outgoing = images[-channels], full.outs[0].state.dims[-channels]
    if call["groups"] == 1:
        o, i = (1, 0) if call["transposed"] else (0, 1)
        return [(incoming, kernel[i]), (kernel[o], outgoing), *((line[0], outgoing) for line in bias)]
    free = _is_free(images) or _is_free(kernel)
    if call["transposed"] or free or not _groups_stay(full, small, staying):
        return None
    return [(line[0], outgoing) for line in (kernel, *bias)]


def _groups_stay(full: Computed, small: Computed, staying: Staying) -> bool:
    """Return whether groups of channels leave, or stay with the inputs that their kernels have.

    As many channels have to stay of each, as the slice's call makes groups of equal widths.
    """
    groups, left = full.call["groups"], small.call["groups"]
    images, kernel, out = full.tensors[0], full.tensors[1], full.outs[0]
    channels = len(kernel.shape) - 1
    incoming, outgoing = (
        staying.along(given.state.dims[-channels], given.shape[-channels]).reshape(groups, -1)
        for given in (images, out)
    )
    stay, counts = incoming.any(1), outgoing.sum(1)
    return bool(
        np.count_nonzero(stay) == left
        and (incoming[stay] == staying.along(kernel.state.dims[1], kernel.shape[1])).all()
        and (counts[stay] == counts[stay][:1]).all()
        and not counts[~stay].any()
    )


def _of_parts(call: Call, full: Computed, staying: Staying) -> Pairs | None:
    """Of each tensor those places have to stay that stay of its part of the result."""
    out, lines = full.outs[0], [given.state.dims for given in full.tensors]
    if any(len(dims) != len(out.shape) or _is_free(dims) for dims in (out.state.dims, *lines)):
        return None
    joint = call["dim"] % len(out.shape)
    parts = [staying.along(given.state.dims[joint], given.shape[joint]) for given in full.tensors]
    if not np.array_equal(np.concatenate(parts), staying.along(out.state.dims[joint], out.shape[joint])):
        return None
    others = [k for k in range(len(out.shape)) if k != joint]
    return [(dims[k], out.state.dims[k]) for dims in lines for k in others]


def _of_pool(full: Computed) -> Pairs | None:
    """Of pools, resampling and reflecting pads: their last dimensions are of one channel."""
    x, leading = full.tensors[0].state.dims, len(full.tensors[0].shape) - SPATIAL[full.name]
    lines = [out.state.dims for out in full.outs]
    if len(full.tensors) > 1 or any(
        len(dims) != len(x) or any(dim is not None for dim in dims[leading:]) for dims in (x, *lines)
    ):
        return None
    return [(x[k], dims[k]) for dims in lines for k in range(leading)]


def _of_mean(call: Call, full: Computed) -> Pairs | None:
    """Of means, sums and extremes over dimensions of which all stays."""
    x, out = full.tensors[0].state.dims, full.outs[0].state.dims
    over = reduced(call, len(x))
    rest = [dim for k, dim in enumerate(x) if k not in over or len(out) == len(x)]
    if len(full.tensors) > 1 or len(full.outs) > 1 or _is_free(x) or _is_free(out) or len(rest) != len(out):
        return None
    return [*zip(rest, out, strict=True), *((x[k], None) for k in over)]


def _of_elements(full: Computed) -> Pairs:
    out = full.outs[0]
    return [
        (given.state.dims[-k], out.state.dims[-k])
        for given in full.tensors
        for k in range(1, len(given.shape) + 1)
        if given.shape[-k] > 1 or out.shape[-k] == 1
    ]


def _is_free(dims: tuple[Any, ...]) -> bool:
    return any(dim is FREE for dim in dims)
