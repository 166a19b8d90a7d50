"""Follow labels through operations that combine channels: convolution, matrix products, norms."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..aliases import Ints
from .propagation import Propagation
from .state import FREE, Call, Convolution, Dim


def convolution(known: Propagation, call: Call, is_activation: bool) -> list[Ints]:
    """Unite input channels with the kernels' input dimension; carry the kernels' output dimension."""
    x, kernel, bias = call["input"], call["weight"], call["bias"]
    weight = known.state(kernel)
    spatial = kernel.dim() - 2
    known.pin(x, "is convolved over", [x.dim() - 1 - k for k in range(spatial)])
    known.pin(kernel, "is a side of a kernel", list(range(2, kernel.dim())))
    channel = x.dim() - spatial - 1
    incoming = known.state(x).dims[channel]
    groups = int(call["groups"])
    o, i = (1, 0) if call["transposed"] else (0, 1)
    if groups == 1:
        known.unite(incoming, weight.dims[i], "meets fixed input channels of a convolution")
        outgoing, kernels = weight.dims[o], weight.dims[o]
    else:
        outgoing = _grouped(known, x, incoming, kernel, groups, i == 0)
        kernels = weight.dims[0]
    if bias is not None:
        outgoing = known.unite(outgoing, known.state(bias).dims[0], "meets a fixed bias")
    if outgoing is not None and outgoing is not FREE:
        known.convolved(kernels, Convolution(kernel, bool(call["transposed"]), groups, outgoing))
    batch: list[Dim] = [known.state(x).dims[0]] if channel == 1 else []
    known.set(call.out, [*batch, outgoing, *[None] * spatial], is_activation)
    return [labels for k in (0, 1) if (labels := weight.labels(k)) is not None]


def _grouped(
    known: Propagation, x: Tensor, incoming: Dim, kernel: Tensor, groups: int, transposed: bool
) -> Dim:
    """Keep or remove whole groups: input channels, rows of the kernels, output channels.

    If there are fewer groups than channels per group, and as many input as output channels per group, every
    group loses channels instead: the same positions in each, of its input and of its output channels. But
    not where the width of the groups is already known to stay, as in a weight norm over it.
    """
    (rows, columns), width = (known.state(kernel).labels(k) for k in (0, 1)), kernel.shape[1]
    square = kernel.shape[0] == groups * width
    within = square and width > groups and rows is not None
    if within and columns is not None:
        within = not known.constraints.is_pinned(columns)
    if square and known.choose(int(within)):
        return _within_groups(known, incoming, kernel, groups)
    known.pin(kernel, "is the width of a group of channels", [1])
    if rows is None:  # kernels that nothing may cut
        if incoming is not None and incoming is not FREE:
            known.constraints.pin(incoming, "meets the fixed kernels of a grouped convolution")
        return None
    first = _unite_rows(known, rows, groups)
    if incoming is None or incoming is FREE:
        known.constraints.pin(rows, "meets fixed input channels of a grouped convolution")
    else:
        known.constraints.unite(_unite_rows(known, incoming, groups), first, "grouped convolution")
    if not transposed:
        return rows
    spread: Ints = np.repeat(first, kernel.shape[1])
    return spread


def _within_groups(known: Propagation, incoming: Dim, kernel: Tensor, groups: int) -> Dim:
    """Keep or remove place p of every group: one column of the kernels and a row in each group."""
    rows, columns = known.state(kernel).dims[:2]
    if rows is None or rows is FREE or columns is None or columns is FREE:
        for dim in (rows, columns, incoming):
            if dim is not None and dim is not FREE:
                known.constraints.pin(dim, "meets the fixed kernels of a grouped convolution")
        return None
    place: Ints = np.tile(columns, groups)
    known.constraints.unite(rows, place, "is one place in every group of channels")
    if incoming is None or incoming is FREE:
        known.constraints.pin(columns, "meets fixed input channels of a grouped convolution")
    else:
        known.constraints.unite(incoming, place, "grouped convolution")
    return rows


def _unite_rows(known: Propagation, labels: Ints, groups: int) -> Ints:
    """Unite what lies in each of `groups` equal blocks of [C]; return each block's first label."""
    rows = labels.reshape(groups, -1)
    for column in range(1, rows.shape[1]):
        known.constraints.unite(rows[:, 0], rows[:, column], "is one group of channels")
    first: Ints = rows[:, 0]
    return first


_OPERANDS = {
    "mm": ("self", "mat2", None),
    "addmm": ("mat1", "mat2", "self"),
    "bmm": ("self", "mat2", None),
    "baddbmm": ("batch1", "batch2", "self"),
}


def matmul(known: Propagation, call: Call, is_activation: bool) -> list[Ints]:
    """Carry rows and columns; unite the summed dimension if one side is a weight, else pin it."""
    left, right, added = _OPERANDS[call.name]
    a, b = call[left], call[right]
    scale = _contract(known, a, b, b.dim() - 2)
    dims: list[Dim] = [known.state(a).dims[-2], known.state(b).dims[-1]]
    if b.dim() == 2 and not known.state(b).is_activation:
        _remember(known, b.T, dims[1])
    if a.dim() == 3:
        batch = known.unite(known.state(a).dims[0], known.state(b).dims[0], "meets a fixed batch")
        dims.insert(0, batch)
        if isinstance(batch, np.ndarray):
            known.heads.append(batch)
            scale.append(batch)
    if added is not None:
        bias = call[added]
        for k in range(1, bias.dim() + 1):
            if bias.shape[-k] > 1:
                dims[-k] = known.unite(dims[-k], known.state(bias).dims[-k], "meets a fixed bias")
    known.set(call.out, dims, is_activation)
    return scale


def _contract(known: Propagation, a: Tensor, b: Tensor, k: int) -> list[Ints]:
    """Sum over `a`'s last dimension and dimension `k` of `b`; return what the cost scales with."""
    x, y = known.state(a), known.state(b)
    if x.is_activation and y.is_activation:
        known.pin(a, "is summed over in a product of activations", [a.dim() - 1])
        known.pin(b, "is summed over in a product of activations", [k])
    else:
        known.unite(x.dims[-1], y.dims[k], "meets fixed inputs of a matrix product")
    inner = x.labels(-1) if x.labels(-1) is not None else y.labels(k)
    outer = [x.labels(-2) if a.dim() > 1 else None, y.labels(-1 if k % b.dim() == b.dim() - 2 else 0)]
    return [labels for labels in (inner, *outer) if labels is not None]


def _remember(known: Propagation, weight: Tensor, rows: Dim) -> None:
    """Record a Linear layer as a convolution with kernels of one number."""
    if rows is not None and rows is not FREE:
        known.convolved(rows, Convolution(weight, False, 1, rows))


def linear(known: Propagation, call: Call, is_activation: bool) -> list[Ints]:
    """Follow `x @ weight.T + bias`."""
    x, weight, bias = call["input"], call["weight"], call["bias"]
    scale = _contract(known, x, weight, 1)
    out = known.state(weight).dims[0]
    _remember(known, weight, out)
    if bias is not None:
        out = known.unite(out, known.state(bias).dims[0], "meets a fixed bias")
    known.set(call.out, [*known.state(x).dims[:-1], out], is_activation)
    return scale


def embedding(known: Propagation, call: Call, is_activation: bool) -> None:
    weight, indices = call["weight"], call["indices"]
    known.pin(weight, "is a row of an embedding", [0])
    known.pin(indices, "is an index")
    known.set(call.out, [*[None] * indices.dim(), known.state(weight).dims[1]], is_activation)


def roi_align(known: Propagation, call: Call, is_activation: bool) -> None:
    """Follow boxes that are cut out of an image and resampled, each with the image's channels."""
    x, boxes = call["input"], call["rois"]
    known.pin(x, f"is a spatial dimension of {call.func}", [k for k in range(x.dim()) if k != 1])
    known.pin(boxes, f"is a box of {call.func}")
    known.set(call.out, [None, known.state(x).dims[1], None, None], is_activation)


def grid_sampler(known: Propagation, call: Call, is_activation: bool) -> None:
    """Follow images that are resampled at the places of a grid, the same ones of each channel."""
    x, grid = call.tensors()
    known.pin(x, f"is a spatial dimension of {call.func}", list(range(2, x.dim())))
    known.pin(grid, f"is a place of {call.func}", list(range(1, grid.dim())))
    images, channels = known.state(x).dims[:2]
    batch = known.unite(images, known.state(grid).dims[0], "meets a fixed batch")
    known.set(call.out, [batch, channels, *[None] * (x.dim() - 2)], is_activation)


def affine_grid(known: Propagation, call: Call, is_activation: bool) -> None:
    """Follow a matrix for each image, of which a grid is made."""
    known.pin(call["theta"], f"is a number of a matrix of {call.func}", [1, 2])
    known.set(call.out, [known.state(call["theta"]).dims[0], *[None] * (call.out.dim() - 1)], is_activation)


def batch_norm(known: Propagation, call: Call, is_activation: bool) -> None:
    """Unite the channels with the affine parameters and the statistics."""
    x = call["input"]
    dims = list(known.state(x).dims)
    known.pin(x, "is normalised over", [k for k in range(x.dim()) if k != 1])
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.has(name) and call[name] is not None:
            dims[1] = known.unite(dims[1], known.state(call[name]).dims[0], "meets a fixed batch norm")
    for out in call.outputs():
        known.set(out, dims if out.dim() == x.dim() else [None] * out.dim(), is_activation)


def group_norm(known: Propagation, call: Call, is_activation: bool) -> None:
    """Keep or remove whole groups, since each is normalised by itself."""
    x = call["input"]
    dims = list(known.state(x).dims)
    known.pin(x, "is normalised over", [k for k in range(x.dim()) if k != 1])
    for name in ("weight", "bias"):
        if call[name] is not None:
            dims[1] = known.unite(dims[1], known.state(call[name]).dims[0], "meets a fixed group norm")
    channels = dims[1]
    if channels is not None and channels is not FREE:
        _unite_rows(known, channels, int(call["group"]))
    known.set(call.out[0], dims, is_activation)
    for out in call.outputs()[1:]:
        known.set(out, [None] * out.dim(), is_activation)


def layer_norm(known: Propagation, call: Call, is_activation: bool) -> None:
    """Pin the normalised dimensions: a masked channel would still count in mean and variance."""
    x = call["input"]
    n = len(call["normalized_shape"])
    why = "is normalised over by a layer norm over several dimensions"
    if n == 1:
        why = "is normalised over by a layer norm that is no module of its own, as nn.LayerNorm is"
    known.pin(x, why, list(range(x.dim() - n, x.dim())))
    dims = list(known.state(x).dims)
    for name in ("weight", "bias"):
        if call.has(name) and call[name] is not None:
            for k in range(1, n + 1):
                dims[-k] = known.unite(dims[-k], known.state(call[name]).dims[-k], why)
    for out in call.outputs():
        known.set(out, dims if out.shape == x.shape else [None] * out.dim(), is_activation)


def norm_over_channels(known: Propagation, call: Call, is_activation: bool) -> None:
    """Unite the channels with the affine parameters, where those that may leave are zeros meanwhile.

    The norm of a model that has lost them takes them as zeros (:mod:`reprune.modules.norms`).
    """
    x, kind = call["x"], call["kind"]
    why = f"is normalised over by a {_NORMS[kind]}"
    k = call["dim"] % x.dim()
    dims = list(known.state(x).dims)
    if kind in ("response", "group"):
        known.pin(x, why, [d for d in range(1, x.dim()) if d != k])
    if k - x.dim() not in known.vanishing.along(x):
        known.pin(x, f"{why} and need not be zero where it is masked", [k])
    for name in ("weight", "bias"):
        if call[name] is not None:
            along = known.state(call[name])
            longest = max(range(len(along.dims)), key=lambda d: call[name].shape[d])
            dims[k] = known.unite(dims[k], along.dims[longest], why)
    known.set(call.out, dims, is_activation)


_NORMS = {
    "layer": "layer norm",
    "rms": "root mean square norm",
    "torch.rms": "root mean square norm",
    "response": "global response norm",
    "group": "group norm of one group",
}


def weight_norm(known: Propagation, call: Call, is_activation: bool) -> None:
    """Pin the dimensions of the norm in `g * v / |v|`, which normalises each slice along `dim`."""
    v, g, dim = call["v"], call["g"], call["dim"]
    over = [k for k in range(v.dim()) if k != dim]
    known.pin(v, "is normalised over by a weight norm", over)
    dims = list(known.state(v).dims)
    dims[dim] = known.unite(dims[dim], known.state(g).dims[dim], "meets a fixed weight norm")
    known.set(call.out[0], dims, is_activation)
    known.set(call.out[1], [d if k == dim else None for k, d in enumerate(dims)], is_activation)
