"""Choose the filters to keep by greedy maximum cluster coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from ..arguments import at_most, integer, one_of, seed_of, text
from .arrays import MOST, device_of, shape_of, to_floats
from .backends import module, resolve

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
    """Pick `keep` filters one by one, each covering the most uncovered clusters (REPrune, Eq. 6-7).

    The gain of filter i is the number of channels j whose cluster `labels[i, j]` no picked filter covers.
    Greedy coverage reaches at least 1 - 1/e of the best coverage there is. Once all clusters are covered,
    gains are 0 and the tie rule alone decides.

    Args:
        labels: `[O, I]` integers >= 0: the cluster of kernel (i, j) within channel j; numpy or torch.
        keep: filters to pick, 1 to O.
        seed: any integer; together with `name` it fixes how ties are broken (see
            :mod:`reprune.clustering.reference.ties`).
        ties: `"random"`, uniform among the tied; `"norm"`, the larger of `norms`, then random.
        norms: `[O]` numbers, the L2 norms of the filters; for `ties="norm"` only.
        name: the layer's name, so that layers with one seed break their ties differently.
        backend: `"auto"`, `"reference"`, `"cpp"` or `"triton"`.

    Returns:
        `(order, gains)`, int64 `[keep]` each: the filters in the order picked and what each covered
        newly.

    Raises:
        ValueError, TypeError: wrong shape or dtype, a negative label, `keep` outside 1..O, unknown
            `ties`, more than 2^30 filters or channels.
        BackendUnavailable: the backend cannot run here.

    Examples:
        Of three filters the first two have the same clusters, so one of them and the third cover all four:

        >>> import numpy as np, reprune
        >>> labels = np.array([[0, 0], [0, 0], [1, 1]])
        >>> order, gains = reprune.max_coverage(labels, 2)
        >>> 2 in order, gains.tolist()
        (True, [2, 2])
    """
    chosen = resolve(backend, device_of(labels))
    text(name, "name")
    at_most(max(shape_of(labels), default=0), MOST, "labels", "filters or channels")
    functions = module(chosen)
    table = functions.integer_table(labels, "labels")
    O = table.shape[0]
    count = integer(keep, "keep", 1, O)
    weights = _checked_norms(ties, norms, O)
    low, high = (int(table.min()), int(table.max())) if 0 not in table.shape else (0, 0)
    if low < 0 or high >= 2**31:
        raise ValueError(f"labels: expected labels from 0 to 2^31 - 1; got {low} to {high}")
    order, gains = functions.cover(table, count, seed_of(seed), name, weights)
    restore = functions.restore(labels)
    return restore(order), restore(gains)


def _checked_norms(ties: str, norms: object, O: int) -> npt.NDArray[np.float64] | None:
    """Return the norms [O] that break ties, or None for `ties="random"`."""
    one_of(ties, "ties", TIES)
    if (ties == "norm") != (norms is not None):
        raise ValueError("norms: expected with ties='norm', and only then")
    if norms is None:
        return None
    weights = to_floats(norms, "norms").astype(np.float64)
    if weights.shape != (O,):
        raise ValueError(f"norms: expected one number per filter [{O}]; got shape {list(weights.shape)}")
    return weights
