"""Cut dendrograms into flat clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from ..arguments import at_most, shown
from .arrays import MOST, device_of, like, shape_of, to_numpy
from .backends import module, resolve

if TYPE_CHECKING:
    import torch

Height = Any  # float, or one per problem: array, tensor or sequence [B]


@overload
def cut(Z: npt.NDArray[Any], height: Height, *, backend: str = "auto") -> npt.NDArray[np.int32]: ...
@overload
def cut(Z: torch.Tensor, height: Height, *, backend: str = "auto") -> torch.Tensor: ...
@overload
def cut(
    Z: Sequence[npt.NDArray[Any]], height: Height, *, backend: str = "auto"
) -> list[npt.NDArray[np.int32]]: ...
@overload
def cut(Z: Sequence[torch.Tensor], height: Height, *, backend: str = "auto") -> list[torch.Tensor]: ...
def cut(Z: Any, height: Height, *, backend: str = "auto") -> Any:
    """Return the labels of the clusters formed by all merges with height <= `height`.

    As `scipy.cluster.hierarchy.fcluster(Z, height, "distance")`, except that labels start at 0 and are
    numbered by first appearance.

    Args:
        Z: dendrograms as :func:`linkage` gives them, `[n-1, 4]`, `[B, n-1, 4]` or a list of ``[n_b - 1,
            4]``; where heights are not sorted, a merge counts only if all merges below it do.
        height: one number, or one per problem `[B]`.
        backend: `"auto"`, `"reference"`, `"cpp"`.

    Returns:
        int32 labels `[n]`, `[B, n]` or a list of `[n_b]`.

    Raises:
        ValueError, TypeError: wrong shape, ids that name no cluster or one twice, NaN.

    Examples:
        >>> import numpy as np, reprune
        >>> Z = reprune.linkage(np.array([[0.0], [1.0], [5.0], [8.0]]))
        >>> reprune.cut(Z, 2.0)
        array([0, 0, 1, 2], dtype=int32)
    """
    ragged = isinstance(Z, (list, tuple)) and any(np.ndim(z) == 2 for z in Z)
    functions = module(resolve(backend, device_of(Z[0]) if ragged else device_of(Z)))
    if ragged:
        heights = _heights(height, len(Z))
        trees = [_tree(z, f"Z[{k}]", (2,)) for k, z in enumerate(Z)]
        labels = [functions.cut(tree[None], heights[k : k + 1])[0] for k, tree in enumerate(trees)]
        return [like(z)(result) for z, result in zip(Z, labels, strict=True)]
    tree = _tree(Z, "Z", (2, 3))
    batch = tree if tree.ndim == 3 else tree[None]
    result = functions.cut(batch, _heights(height, len(batch)))
    return like(Z)(result if tree.ndim == 3 else result[0])


def _heights(height: Height, problems: int) -> npt.NDArray[np.float64]:
    given = to_numpy(height, "height")
    if given.dtype.kind not in "iuf":
        raise TypeError(f"height: expected one number or one per problem [{problems}]; got {shown(height)}")
    heights = np.asarray(given, dtype=np.float64)
    if heights.shape not in ((), (problems,)):
        raise ValueError(
            f"height: expected one number or one per problem [{problems}]; got shape {list(heights.shape)}"
        )
    if np.isnan(heights).any():
        raise ValueError("height: expected a number; got NaN")
    return np.ascontiguousarray(np.broadcast_to(heights, (problems,)))


def _tree(Z: object, name: str, dimensions: tuple[int, ...]) -> npt.NDArray[np.float64]:
    at_most(max(shape_of(Z), default=0), MOST - 1, name, "merges or problems")
    tree = to_numpy(Z, name)
    if tree.dtype.kind not in "iuf" or tree.ndim not in dimensions or tree.shape[-1] != 4:
        shapes = " or ".join({2: "[n-1, 4]", 3: "[B, n-1, 4]"}[k] for k in dimensions)
        raise ValueError(f"{name}: expected {shapes} real numbers; got {tree.dtype} {list(tree.shape)}")
    tree = np.ascontiguousarray(tree, dtype=np.float64)
    merges = tree.shape[-2]
    ids = tree[..., :2]  # each of the clusters 0 .. 2n-3 once, and before its own number
    rows = np.arange(merges)[:, None]
    good = (
        np.isfinite(ids).all()
        and (ids == np.floor(ids)).all()
        and (ids >= 0).all()
        and (ids <= merges + rows).all()
    )
    flat = np.sort(ids.reshape(*tree.shape[:-2], 2 * merges), axis=-1)
    if not good or (flat[..., 1:] == flat[..., :-1]).any():
        raise ValueError(f"{name}: expected ids of earlier clusters, each merged once, in columns 0 and 1")
    if np.isnan(tree[..., 2]).any():
        raise ValueError(f"{name}: expected heights in column 2; got NaN")
    return tree
