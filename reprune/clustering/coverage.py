"""Greedy maximum cluster coverage: which filters to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from ..arguments import at_most, integer, one_of, seed_of, text
from . import reference
from .arrays import MOST, device_of, like, shape_of, to_floats, to_numpy
from .backend import core, resolve
from .tensors import restore, to_tensor

if TYPE_CHECKING:
    import torch

TIES = ("random", "norm")


@overload
def max_coverage(
    labels: npt.NDArray[Any],
    keep: int,
    seed: int = 0,
    *,
    ties: str = "random",
    norms: npt.ArrayLike | None = None,
    name: str = "",
    backend: str = "auto",
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]: ...
@overload
def max_coverage(
    labels: torch.Tensor,
    keep: int,
    seed: int = 0,
    *,
    ties: str = "random",
    norms: Any = None,
    name: str = "",
    backend: str = "auto",
) -> tuple[torch.Tensor, torch.Tensor]: ...
def max_coverage(
    labels: Any,
    keep: int,
    seed: int = 0,
    *,
    ties: str = "random",
    norms: Any = None,
    name: str = "",
    backend: str = "auto",
) -> tuple[Any, Any]:
    """Picks ``keep`` filters one by one, each covering the most clusters not covered yet (REPrune, Eq. 6-7).

    The gain of filter i is the number of channels j whose cluster ``labels[i, j]`` no picked filter covers.
    Greedy coverage reaches at least 1 - 1/e of the best coverage there is. Once all is covered, gains are 0
    and the tie rule goes on.

    Args:
        labels: ``[O, I]`` integers >= 0: the cluster of kernel (i, j) within channel j; numpy or torch.
        keep: filters to pick, 1 to O.
        seed: any integer; together with ``name`` it fixes how ties are broken (see
            :mod:`reprune.clustering.reference.ties`).
        ties: ``"random"``, uniform among the tied; ``"norm"``, the larger of ``norms``, then random.
        norms: ``[O]`` numbers, the L2 norms of the filters; for ``ties="norm"`` only.
        name: the layer's name, so that layers with one seed break their ties differently.
        backend: ``"auto"``, ``"reference"``, ``"cpp"`` or ``"triton"``.

    Returns:
        ``(order, gains)``, int64 ``[keep]`` each: the filters in the order picked and what each covered
        newly.

    Raises:
        ValueError, TypeError: wrong shape or dtype, a negative label, ``keep`` outside 1..O, unknown
        ``ties``, more than 2^30 filters or channels, or 4,096 filters with backend "triton".
        BackendUnavailable: the backend cannot run here.
    """
    chosen = resolve(backend, device_of(labels))
    text(name, "name")
    at_most(max(shape_of(labels), default=0), MOST, "labels", "filters or channels")
    if chosen == "triton":
        return _on_gpu(labels, keep, seed, ties, norms, name)
    table = to_numpy(labels, "labels")
    if table.ndim != 2 or table.dtype.kind not in "iu" or table.shape[0] < 1:
        raise ValueError(f"labels: expected integers [O, I], O >= 1; got {table.dtype} {list(table.shape)}")
    O = table.shape[0]
    count = integer(keep, "keep", 1, O)
    weights = check_ties(ties, norms, O)
    if table.size and (table.min() < 0 or table.max() >= 2**31):
        raise ValueError(f"labels: expected labels from 0 to 2^31 - 1; got {table.min()} to {table.max()}")
    order, gains = cover(table, count, seed_of(seed), name, weights, chosen)
    restore = like(labels)
    return restore(order), restore(gains)


def check_ties(ties: str, norms: object, O: int) -> npt.NDArray[np.float64] | None:
    """The norms [O] by which ties are broken; None for ``ties="random"``."""
    one_of(ties, "ties", TIES)
    if (ties == "norm") != (norms is not None):
        raise ValueError("norms: expected with ties='norm', and only then")
    if norms is None:
        return None
    weights = to_floats(norms, "norms").astype(np.float64)
    if weights.shape != (O,):
        raise ValueError(f"norms: expected one number per filter [{O}]; got shape {list(weights.shape)}")
    return weights


def cover(
    labels: npt.NDArray[Any],
    keep: int,
    seed: int,
    name: str,
    norms: npt.NDArray[np.float64] | None,
    backend: str,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Labels [O, I], non-negative integers -> order [keep], gains [keep]; trusts its arguments."""
    if backend != "cpp":
        return reference.max_coverage(labels, keep, seed, name, norms)
    clusters = int(labels.max(initial=0)) + 1
    if clusters > len(labels):  # the core counts clusters in arrays of at most O
        columns = [np.unique(column, return_inverse=True)[1] for column in labels.T]
        labels, clusters = np.stack(columns, axis=1), len(labels)
    table = np.ascontiguousarray(labels, dtype=np.int32)
    result: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] = core().max_coverage(
        table, clusters, keep, seed, name, norms
    )
    return result


def _on_gpu(
    labels: object, keep: object, seed: object, ties: str, norms: object, name: str
) -> tuple[Any, Any]:
    import torch

    from ..kernels import coverage as kernel

    table = to_tensor(labels, "labels")
    if table.ndim != 2 or table.dtype.is_floating_point or table.dtype == torch.bool or len(table) < 1:
        raise ValueError(f"labels: expected integers [O, I], O >= 1; got {table.dtype} {list(table.shape)}")
    O = len(table)
    count = integer(keep, "keep", 1, O)
    weights = check_ties(ties, norms, O)
    if O > kernel.MOST_FILTERS:
        raise ValueError(
            f"labels: expected at most {kernel.MOST_FILTERS} filters for backend 'triton', got {O}; "
            "backend='cpp' takes any number"
        )
    table = table.long()
    low, high = (int(x) for x in table.aminmax()) if table.numel() else (0, 0)
    if low < 0 or high >= 2**31:
        raise ValueError(f"labels: expected labels from 0 to 2^31 - 1; got {low} to {high}")
    columns = table.T.contiguous()
    if high >= O:  # the kernel counts clusters in arrays of at most O
        columns, high = _renumbered(columns), O - 1
    problem = kernel.CoverProblem(
        columns.int(),
        high + 1,
        count,
        reference.tie_key(seed_of(seed), name),
        None if weights is None else torch.from_numpy(weights).to(table.device),
    )
    (found,) = kernel.max_coverage(core(), [problem])
    to_user = restore(labels)
    return to_user(found[0]), to_user(found[1])


def _renumbered(columns: torch.Tensor) -> torch.Tensor:
    """Labels [I, O] -> the same clusters, numbered from 0 in the order of their labels."""
    ascending, filters = columns.sort(dim=1)
    steps = (ascending[:, 1:] != ascending[:, :-1]).long().cumsum(dim=1)
    result = columns.new_zeros(columns.shape)
    return result.scatter_(1, filters[:, 1:], steps)
