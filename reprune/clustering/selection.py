"""Which filters of a layer stay: clusters of its kernels, one cut, greedy coverage (REPrune, Eq. 1-7)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..aliases import Array
from ..arguments import at_most, integer, is_tensor, one_of, seed_of, text
from . import gpu, reference
from .arrays import MOST, MOST_IN_SPACE, device_of, like, shape_of, to_floats
from .backend import core, num_threads, resolve
from .tensors import require_finite, to_float_tensor
from .tensors import restore as back_to

TIES = ("random", "norm")


@dataclass(frozen=True, eq=False)
class Selection:
    """The filters of one layer that stay, and how they were found.

    Arrays are numpy, or torch on the device of the weight if that was a tensor. A layer that keeps all its
    filters is not
    clustered: every kernel is a cluster of its own and the height is minus infinity.
    """

    keep: Any
    """int64 [keep]: the filters that stay, ascending."""
    order: Any
    """int64 [keep]: the same in the order they were picked."""
    gains: Any
    """int64 [keep]: clusters that each pick covered newly."""
    heights: tuple[float, ...]
    """Cut height of every table of kernels; a layer has one, a group of layers that is selected as one has
    one each."""
    labels: Any
    """int32 [O, I]: cluster of kernel (i, j) within input channel j, numbered from 0 by first appearance."""
    clusters: Any
    """int32 [I]: number of clusters of every input channel."""

    @property
    def height(self) -> float:
        """The cut height of a layer with one table of kernels."""
        if len(self.heights) != 1:
            raise ValueError(f"height: this selection has {len(self.heights)} tables of kernels; see heights")
        return self.heights[0]

    @property
    def coverage(self) -> float:
        """Covered clusters / all clusters."""
        return float(self.gains.sum()) / float(self.clusters.sum())

    def __repr__(self) -> str:
        O, I = self.labels.shape
        return f"Selection(keep {len(self.keep)} of {O} filters, {I} channels, coverage {self.coverage:.3f})"


@dataclass(frozen=True)
class LayerProblem:
    """One group of channels that is selected as one; the label tables of its producers stand side by side."""

    name: str
    """Goes into the hash that breaks ties."""
    tables: tuple[Any, ...]
    """Each [I, O, d], float32 or float64, finite, any strides: I clustering problems of O points; O is
    common. Arrays of numpy, or tensors for the backend "triton"."""
    keep: int
    """Filters to keep, 1 <= keep <= O."""


def select_filters(
    weight: Array,
    keep: int,
    *,
    seed: int = 0,
    ties: str = "random",
    name: str = "",
    backend: str = "auto",
) -> Selection:
    """Selects the filters of one layer by REPrune's criterion.

    The kernels ``weight[:, j]`` of every input channel j are clustered by Ward linkage. All channels are cut
    at one height, the largest at which any of them makes its ``O - keep``-th merge (Eq. 5), so that each ends
    with at most ``keep`` clusters. Then ``keep`` filters are picked greedily to cover the most clusters
    (Eq. 6-7). Any finite weights are clustered right, by the rule and with the heights of :func:`linkage`:
    every backend but "triton", which breaks ties between merges otherwise, gives the same selection to the
    last bit.

    Args:
        weight: ``[O, I, ...]``, the weight of a convolution or linear layer; numpy or torch, any real dtype
            and strides.
        keep: filters to keep, 1 to O.
        seed: any integer; with ``name`` it fixes how ties are broken, the same on every backend.
        ties: ``"random"``, uniform among the tied (the paper's rule); ``"norm"``, the filter with the larger
            L2 norm; norms below 1e-300 of the largest weight count as 0.
        name: the layer's name.
        backend: ``"auto"``, ``"reference"``, ``"cpp"`` or ``"triton"``.

    Raises:
        ValueError, TypeError: wrong shape, NaN or infinity, ``keep`` outside 1..O, unknown ``ties`` or
            ``backend``, more than 2^30 filters or channels, or 2^24 filters of larger kernels than 1x1.
        BackendUnavailable: the backend cannot run here.
    """
    chosen = resolve(backend, device_of(weight))
    shape = shape_of(weight)
    at_most(max(shape, default=0), MOST, "weight", "filters, channels or numbers of a kernel")
    if math.prod(shape[2:]) > 1:
        at_most(shape[0], MOST_IN_SPACE, "weight", "filters of kernels of more than one number")
    given: Any
    if chosen == "triton":
        given = to_float_tensor(weight, "weight")
        require_finite(given, "weight")
    else:
        given = to_floats(weight, "weight")
    if given.ndim < 2 or 0 in given.shape:
        raise ValueError(f"weight: expected shape [O, I, ...], none of them 0; got {list(given.shape)}")
    O, I = given.shape[:2]
    count = integer(keep, "keep", 1, O)
    one_of(ties, "ties", TIES)
    text(name, "name")
    table = given.reshape(O, I, -1).swapaxes(0, 1)  # [I, O, d]
    problem = LayerProblem(name, (table,), count)
    (selection,) = select_layers([problem], seed=seed_of(seed), ties=ties, backend=chosen)
    back = like(weight)
    return Selection(
        keep=back(selection.keep),
        order=back(selection.order),
        gains=back(selection.gains),
        heights=selection.heights,
        labels=(back_to(weight) if is_tensor(selection.labels) else back)(selection.labels),
        clusters=back(selection.clusters),
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
    """Selects many layers at once; trusts its arguments.

    With ``backend="triton"`` tables may be tensors, and labels are tensors on the GPU; all else is on the
    host, brought there by one copy at the end.

    ``labels=False`` leaves the labels of the selections empty on the host: they take as much memory as the
    kernels of a Linear layer.

    ``progress`` is called on this thread with the number of layers done so far; what it raises ends the work.
    """
    results: list[Selection | None] = [
        _keep_all(p) if p.keep == p.tables[0].shape[1] else None for p in problems
    ]
    todo = [k for k, result in enumerate(results) if result is None]
    done = len(problems) - len(todo)
    if progress is not None and done:
        progress(done)
    if backend == "triton":
        layers = [gpu.GpuProblem(problems[k].name, problems[k].tables, problems[k].keep) for k in todo]
        for k, s in zip(todo, gpu.select_layers(layers, seed, ties), strict=True):
            results[k] = Selection(np.sort(s.order), s.order, s.gains, s.heights, s.labels, s.clusters)
        if progress is not None and todo:
            progress(len(problems))
    elif backend == "cpp":
        given = [(problems[k].name, list(problems[k].tables), problems[k].keep) for k in todo]
        report = None if progress is None else lambda count: progress(done + count)
        found = core().select_layers(given, seed % 2**64, ties == "norm", num_threads(), labels, report)
        for k, (order, gains, heights, columns, clusters) in zip(todo, found, strict=True):
            results[k] = Selection(np.sort(order), order, gains, tuple(heights), columns.T, clusters)
    else:
        for count, k in enumerate(todo, 1):
            problem = problems[k]
            order, gains, cuts, table = reference.select_layer(
                problem.tables, problem.keep, seed, ties, problem.name
            )
            clusters = table.max(axis=0) + np.int32(1)
            results[k] = Selection(np.sort(order), order, gains, tuple(cuts), table, clusters)
            if progress is not None:
                progress(done + count)
    return cast("list[Selection]", results)


def _keep_all(problem: LayerProblem) -> Selection:
    O = problem.tables[0].shape[1]
    I = sum(len(table) for table in problem.tables)
    every: npt.NDArray[np.int64] = np.arange(O)
    return Selection(
        keep=every,
        order=every,
        gains=np.full(O, I),
        heights=(-math.inf,) * len(problem.tables),
        labels=np.broadcast_to(np.arange(O, dtype=np.int32)[:, None], (O, I)),
        clusters=np.full(I, O, dtype=np.int32),
    )
