"""Split one labelled dimension into several, as a view C -> (heads, C / heads) does."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..aliases import Ints
from .labels import FIXED
from .propagation import Propagation
from .state import Call

PACKED = 3
"""Queries, keys and values in one tensor: so short a first part is taken for these, not for heads."""

_VIEWS = ("_unsafe_view", "reshape", "_reshape_alias")


def split(
    known: Propagation, call: Call, x: Tensor, part: Tensor, where: list[int], k: int, labels: Ints
) -> dict[int, Ints]:
    """Return {the part of dimension `k` of `x` that carries: its labels}; the other parts unite.

    `part` holds the positions along `k` in the result, `where` the dimensions along which they vary. One may
    vary along others too, where the dimension was merged with the batch: then positions and their labels are
    repeated, and a part along which alone the labels vary carries.

    In all other cases one trace cannot tell which part carries. The guess is recorded, with another in case
    that what it carries cannot be removed, and the certificate rejects a wrong one.
    """
    for e in set(range(part.dim())) - set(where):
        part = part.narrow(e, 0, 1)  # the same all along
    here = part.cpu().numpy()
    alone = [d for d in where if _varies_alone(labels[here], d)] if _repeats(labels) else []
    if alone:
        d = known.choose(max(alone, key=lambda e: here.shape[e]))
    else:
        sizes = tuple(here.shape[e] for e in where)
        d = known.choose_part(*_guesses(known, call, x, here.shape, where, k), k, sizes, labels)
    if d >= here.ndim:  # a guess of the full model's, which splits something else here
        known.constraints.pin(labels, f"is split otherwise by {call.func} once some channels are removed")
        return {}
    rows = np.moveaxis(here, d, 0).reshape(here.shape[d], -1)
    _, one, which = np.unique(rows[:, 0], return_index=True, return_inverse=True)
    distinct = rows[one]
    row_of = np.full(labels.size, FIXED)
    row_of[distinct] = np.arange(len(one))[:, None]
    if (
        (row_of == FIXED).any()
        or (row_of[distinct] != np.arange(len(one))[:, None]).any()
        or not np.array_equal(rows, distinct[which])
    ):
        known.constraints.pin(labels, f"is rearranged in an unsupported way by {call.func}")
        return {}
    first = labels[distinct[:, 0]]
    known.constraints.unite(labels, first[row_of], f"is one block in {call.func}")
    return {d: first[which]}


def _repeats(labels: Ints) -> bool:
    return np.unique(labels).size < labels.size


def _varies_alone(ids: Ints, d: int) -> bool:
    """Return whether the labels `ids`, at their places, are the same along all dimensions but `d`."""
    along = ids[tuple(slice(None) if e == d else slice(1) for e in range(ids.ndim))]
    return bool((ids == along).all())


def _guesses(
    known: Propagation, call: Call, x: Tensor, sizes: tuple[int, ...], where: list[int], k: int
) -> tuple[int, int]:
    """Return which part carries, and the next best.

    Operations keep their channel dimension. Of a view of images the longest part carries (groups are few,
    channels many), and so of anything but what a Linear layer gives to attention, where it is the heads.
    """
    longest = sorted(where, key=lambda e: (sizes[e], e))
    is_view = call.operation.is_view or call.name in _VIEWS
    guess = _heads(x, sizes, where, k) if is_view and known.state(x).is_activation else None
    if guess is None:
        guess = k if k in where and not call.operation.is_view else longest[-1]
    return guess, next(e for e in reversed(longest) if e != guess)


def _heads(x: Tensor, sizes: tuple[int, ...], where: list[int], k: int) -> int | None:
    """Return the part before the last if the last dimension of tokens is split, with nothing behind."""
    tokens = x.dim() > 2 or len(sizes) - len(where) > 1
    if k != x.dim() - 1 or where[-1] != len(sizes) - 1 or not tokens:
        return None
    inner = where[:-1] if sizes[where[0]] > PACKED else where[1:-1]
    return max(inner, key=lambda e: (sizes[e], e), default=None)
