"""Lay out a layer as a matrix product: a row for each output position, of the inputs that it is made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .calls import Call

_ELEMENTS = 2**22
"""Of the largest piece of such a matrix that is made at a time."""


class Layout:
    """The inputs of one call as `[entries, positions]` rows of `[groups, inputs]`.

    An entry is what lies along the dimension `batch` of the input: an image, a window or a region of one.
    Positions are those of the output, except for a transposed convolution: that is a convolution over the
    input with zeros between its values.
    """

    def __init__(self, call: Call, batch: int) -> None:
        self._call, self._batch = call, batch
        self.groups = call.groups
        if not call.dimensions:
            x = call.input.movedim(batch, 0)
            self._x = x.reshape(x.shape[0], -1, x.shape[-1])  # [entries, positions, I]
            self.positions, self.inputs = self._x.shape[1], x.shape[-1]
            return
        x, kernel, stride = _as_convolution(call)
        self._x = x
        self._taps = _taps(x.shape[2:], kernel, stride, call.along("dilation")).to(x.device)
        self.positions, self.inputs = self._taps.shape[0], x.shape[1] // self.groups * self._taps.shape[1]

    @property
    def entries(self) -> int:
        return self._x.shape[0]

    def outputs(self, y: Tensor) -> Tensor:
        """Return an output of the layer as [entries, positions, O]."""
        if not self._call.dimensions:
            y = y.movedim(self._batch, 0)
            return y.reshape(y.shape[0], -1, y.shape[-1])
        return y.flatten(2).transpose(1, 2)

    def rows(self, entries: Tensor, positions: Tensor) -> Tensor:
        """Return [rows, groups, inputs] float64; `inputs` in the order of the weight's columns."""
        if not self._call.dimensions:
            return self._x[entries][:, positions].flatten(0, 1)[:, None].double()
        x = self._x.index_select(0, entries).flatten(2)
        taps = self._taps[positions]
        x = x.index_select(2, taps.flatten()).view(*x.shape[:2], *taps.shape)  # [n, C, P, T]
        x = x.view(x.shape[0], self.groups, -1, *taps.shape).permute(0, 3, 1, 2, 4)
        return x.reshape(-1, self.groups, self.inputs).double()

    def pieces(self, entries: Tensor, positions: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Cut entries and positions so that the rows of each piece are few enough."""
        width = self.groups * self.inputs
        for part in torch.split(positions, max(1, _ELEMENTS // width)):
            for some in torch.split(entries, max(1, _ELEMENTS // (width * len(part)))):
                yield some, part


def as_weight(solution: Tensor, call: Call) -> Tensor:
    """Return [groups, inputs, outputs] in the shape of the weight of `call`."""
    shape = call.weight.shape
    if not call.is_transposed:
        return solution.transpose(1, 2).reshape(shape)
    groups, _, outputs = solution.shape
    x = solution.view(groups, shape[0] // groups, *shape[2:], outputs).movedim(-1, 2)
    return x.flip(tuple(range(3, x.dim()))).reshape(shape)


def batch_dimension(call: Call, probe: tuple[int, ...]) -> int:
    """Return the dimension of the input of `linear` along which the images lie: 0, or as shapes show.

    `probe` is the shape of the same input for another number of images.
    """
    shape = call.input.shape
    if call.dimensions or len(probe) != len(shape):
        return 0
    changed = [dim for dim, (a, b) in enumerate(zip(shape, probe, strict=True)) if a != b]
    return changed[0] if len(changed) == 1 else 0


def _as_convolution(call: Call) -> tuple[Tensor, tuple[int, ...], tuple[int, ...]]:
    """Return the padded input, kernel size and stride."""
    x, kernel = call.input, tuple(call.weight.shape[2:])
    reach = [step * (size - 1) for step, size in zip(call.along("dilation"), kernel, strict=True)]
    padding = call.arguments.get("padding", 0)
    if padding == "same":
        ends = [(whole // 2, whole - whole // 2) for whole in reach]
    elif padding == "valid":
        ends = [(0, 0)] * call.dimensions
    else:
        ends = [(size, size) for size in call.along("padding")]
    stride = call.along("stride")
    if call.is_transposed:
        more = call.along("output_padding")
        ends = [(r - low, r - low + m) for r, (low, _), m in zip(reach, ends, more, strict=True)]
        x, stride = _with_zeros(x, stride), (1,) * call.dimensions
    return F.pad(x, tuple(itertools.chain(*reversed(ends)))), kernel, stride


def _with_zeros(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Return `x` with `stride - 1` zeros between neighbours."""
    sizes = [(size - 1) * step + 1 for size, step in zip(x.shape[2:], stride, strict=True)]
    out = x.new_zeros(*x.shape[:2], *sizes)
    index = (slice(None), slice(None), *(slice(None, None, step) for step in stride))
    out[index] = x
    return out


def _taps(
    sizes: torch.Size, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Tensor:
    """Return [positions, taps]: where in the flattened padded input each output reads."""
    found = torch.zeros(1, 1, dtype=torch.long)
    for size, width, step, apart in zip(sizes, kernel, stride, dilation, strict=True):
        starts = torch.arange(0, size - apart * (width - 1), step)
        one = starts[:, None] + apart * torch.arange(width)  # [positions, taps] of this dimension
        found = found[:, None, :, None] * size + one[None, :, None, :]
        found = found.flatten(2).flatten(0, 1)
    return found
