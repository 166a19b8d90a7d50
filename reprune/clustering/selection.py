"""Select the filters of a layer: cluster its kernels, cut once, cover greedily (REPrune, Eq. 1-7)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt

from ..aliases import Array
from ..arguments import at_most, integer, is_tensor, one_of, seed_of, text
from .arrays import MOST, MOST_IN_SPACE, MOST_ON_GPU, device_of, like, shape_of
from .backends import module, resolve
from .problem import LayerProblem, Selection

TIES = ("random", "norm")


def select_filters(
    weight: Array,
    keep: int,
    *,
    seed: int = 0,
    ties: str = "random",
    name: str = "",
    backend: str = "auto",
) -> Selection:
    """Select the filters of one layer by REPrune's criterion.

    The kernels `weight[:, j]` of every input channel j are clustered by Ward linkage. All channels are cut at
    one height, the largest at which any of them makes its `O - keep`-th merge (Eq. 5), so that each ends with
    at most `keep` clusters. Then `keep` filters are picked greedily to cover the most clusters (Eq. 6-7). Any
    finite weights are clustered right, by the rule and with the heights of :func:`linkage`: every backend
    gives the same selection to the last bit.

    Args:
        weight: `[O, I, ...]`, the weight of a convolution or linear layer; numpy or torch, any real dtype
            and strides.
        keep: filters to keep, 1 to O.
        seed: any integer; with `name` it fixes how ties are broken, the same on every backend.
        ties: `"random"`, uniform among the tied (the paper's rule); `"norm"`, the filter with the larger
            L2 norm; norms below 1e-300 of the largest weight count as 0.
        name: the layer's name.
        backend: `"auto"`, `"reference"`, `"cpp"` or `"triton"`.

    Raises:
        ValueError, TypeError: wrong shape, NaN or infinity, `keep` outside 1..O, unknown `ties` or
            `backend`, more than 2^30 filters or channels, or 2^24 filters of larger kernels than 1x1.
        BackendUnavailable: the backend cannot run here.

    Examples:
        >>> import torch, reprune
        >>> weight = torch.nn.Conv2d(16, 32, 3).weight
        >>> selection = reprune.select_filters(weight, keep=8)
        >>> selection.keep.shape, selection.labels.shape
        (torch.Size([8]), torch.Size([32, 16]))
    """
    shape = shape_of(weight)
    chosen = resolve(backend, device_of(weight), on_gpu=len(shape) == 0 or shape[0] <= MOST_ON_GPU)
    at_most(max(shape, default=0), MOST, "weight", "filters, channels or numbers of a kernel")
    if math.prod(shape[2:]) > 1:
        at_most(shape[0], MOST_IN_SPACE, "weight", "filters of kernels of more than one number")
    functions = module(chosen)
    given = functions.floats(weight, "weight")
    if given.ndim < 2 or 0 in given.shape:
        raise ValueError(f"weight: expected shape [O, I, ...], none of them 0; got {list(given.shape)}")
    O, I = given.shape[:2]
    count = integer(keep, "keep", 1, O)
    one_of(ties, "ties", TIES)
    text(name, "name")
    table = given.reshape(O, I, -1).swapaxes(0, 1)  # [I, O, d]
    problem = LayerProblem(name, (table,), count)
    (selection,) = select_layers([problem], seed=seed_of(seed), ties=ties, backend=chosen)
    restore, restore_labels = like(weight), functions.restore(weight)
    return Selection(
        keep=restore(selection.keep),
        order=restore(selection.order),
        gains=restore(selection.gains),
        heights=selection.heights,
        labels=(restore_labels if is_tensor(selection.labels) else restore)(selection.labels),
        clusters=restore(selection.clusters),
    )


def select_layers(
    problems: Sequence[LayerProblem],
    *,
    seed: int = 0,
    ties: str = "random",
    backend: str = "cpp",
    labels: bool = True,
    progress: Callable[[int], None] | None = None,
) -> list[Selection]:
    """Select the filters of many layers at once; arguments are not checked.

    With `backend="triton"` tables may be tensors, and labels are tensors on the GPU; all else is on the
    host, brought there by one copy at the end.

    `labels=False` leaves the labels of the selections empty on the host: they take as much memory as the
    kernels of a Linear layer.

    `progress` is called on this thread with the number of layers done so far; what it raises ends the work.
    """
    results = [_keep_all(p, labels) if p.keep == p.tables[0].shape[1] else None for p in problems]
    todo = [k for k, result in enumerate(results) if result is None]
    done = len(problems) - len(todo)
    if progress is not None and done:
        progress(done)
    report = None if progress is None else lambda count: progress(done + count)
    found = module(backend).select([problems[k] for k in todo], seed, ties, labels, report)
    for k, selection in zip(todo, found, strict=True):
        results[k] = selection
    return cast("list[Selection]", results)


def _keep_all(problem: LayerProblem, labels: bool) -> Selection:
    O = problem.tables[0].shape[1]
    I = sum(len(table) for table in problem.tables)
    every: npt.NDArray[np.int64] = np.arange(O)
    return Selection(
        keep=every,
        order=every.copy(),
        gains=np.full(O, I),
        heights=(-math.inf,) * len(problem.tables),
        labels=np.repeat(np.arange(O, dtype=np.int32)[:, None], I if labels else 0, axis=1),
        clusters=np.full(I, O, dtype=np.int32),
    )
