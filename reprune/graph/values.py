"""Check with values that a call of the slice gives what the call of the full model gives.

Labels say which positions of the slice's tensors are which of the full model's; the rules that say so could
be wrong in the same way in both runs. So a call that computes is run twice on made-up values, in full and
sliced, and its results have to agree at the positions that stay. What was removed may have any value in an
activation, and is zero in a weight: that is what a pruned network equals. By induction over the calls, the
slice then computes what the full network computes without the removed channels.

Calls run on few numbers: dimensions without labels that an operation treats alike are cut to one position.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..aliases import Ints
from .computed import Computed
from .evident import Mask, Staying, is_evident
from .given import Given
from .narrowing import Narrowing, narrowing_of
from .rules_attention import FUSED, ON_CPU, by_formula
from .state import FREE, Call, Dim, State

TOLERANCE = 1e-9
"""Relative to the largest value: sums in float64 in another order."""

_NEVER = 99
"""In the place of a dimension that there is not."""


class _Pair(NamedTuple):
    """A tensor in both runs."""

    resized: int
    """The first dimension without labels that has another size."""
    other: int
    """The first whose labels are not those that stay; -1 where one run has more dimensions."""
    whole: bool
    """Whether all labels stay."""


class Values:
    """Made-up values of positions, by label where there is one; `stays` [labels] says what the slice has.

    `given` are the labels of the model's own tensors and those of the slice's, which were made of them.
    """

    def __init__(self, stays: Mask, given: Iterable[tuple[Ints, Ints]]) -> None:
        self._staying = Staying(stays)
        self._stays = self._staying.stays
        draw = np.random.default_rng(0)
        self._of_label = draw.uniform(0.5, 1.5, stays.size + 1)
        self._rests: dict[int, Ints] = {}
        self._pairs: dict[Any, _Pair] = {}
        self._given = {(id(full), id(small)) for full, small in given}
        self._of_place = draw.uniform(0.5, 1.5, 1024)

    def differ(self, full: Computed, small: Computed) -> bool:
        """Return whether the slice's call, `small`, gives something else than the `full` model's."""
        given = [*full.tensors, *full.outs], [*small.tensors, *small.outs]
        if len(given[0]) != len(given[1]) or any(a.dtype.is_complex for a in full.tensors):
            return False
        if full.func is not small.func:
            return True
        same = numbers = full.numbers == small.numbers
        for i, (mine, other) in enumerate(zip(*given, strict=True)):
            key = id(mine.state), id(other.state), mine.shape, other.shape
            pair = self._pairs.get(key)
            if pair is None:
                pair = self._pairs[key] = self._compared(mine, other)
            resized, parted, whole = pair
            if resized < parted and i < len(full.tensors):
                return False  # the data decide how many
            if parted < _NEVER:
                return True
            same = same and whole
        if same or (numbers and is_evident(full, small, self._staying)):
            return False
        return self._run_differently(full, small)

    def _compared(self, full: Given, small: Given) -> _Pair:
        """Compare the dimensions of a tensor in both runs; it is in the call that makes it and in others."""
        if len(full.shape) != len(small.shape):
            return _Pair(_NEVER, -1, False)
        resized = other = _NEVER
        whole = True
        for k, (a, b) in enumerate(zip(full.state.dims, small.state.dims, strict=True)):
            if isinstance(a, np.ndarray):
                if not isinstance(b, np.ndarray) or not (
                    (id(a), id(b)) in self._given or np.array_equal(self._rest(a), b)
                ):
                    other = min(other, k)
                    break
                whole = whole and b.size == a.size
            elif a is None and full.shape[k] != small.shape[k]:
                resized = min(resized, k)
        return _Pair(resized, other, whole)

    def _rest(self, ids: Ints) -> Ints:
        """Return those of the labels `ids` that stay."""
        rest = self._rests.get(id(ids))
        if rest is None:
            rest = self._rests[id(ids)] = ids[self._staying.mask(ids)]
        return rest

    def _run_differently(self, full: Computed, small: Computed) -> bool:
        cut = narrowing_of(full.call, [self._where_cut(given) for given in full.tensors])
        try:
            expected = self._run(full, None, cut)
        except (RuntimeError, IndexError, TypeError, ValueError, NotImplementedError):
            return False  # not on these values
        try:
            found = self._run(full, small, cut)
        except (RuntimeError, IndexError, TypeError, ValueError):
            return True
        for k, (mine, other) in enumerate(zip(expected, found, strict=True)):  # of a stand-in the first
            dims = full.outs[k].state.dims
            if k and not any(isinstance(dim, np.ndarray) for dim in dims):
                continue  # statistics of a norm
            for d, dim in enumerate(dims):
                if dim is FREE:
                    mine, other = (
                        mine[(slice(None),) * d + (slice(1),)],
                        other[(slice(None),) * d + (slice(1),)],
                    )
                elif isinstance(dim, np.ndarray):
                    kept = self._stays[dim if d not in cut.outs else dim[cut.outs[d]]]
                    if not kept.all() and mine.shape[d] == kept.size:  # else cut to where all stay
                        mine = mine[(slice(None),) * d + (kept,)]
            if mine.shape != other.shape or not _alike(mine, other):
                return True
        return False

    def _where_cut(self, given: Given) -> Given:
        """Return `given` with labels only where some are removed; other dimensions are as good as without."""
        dims = [
            dim if not isinstance(dim, np.ndarray) or self._rest(dim).size < dim.size else None
            for dim in given.state.dims
        ]
        return Given(given.shape, given.dtype, State(tuple(dims), given.state.is_activation))

    def _run(self, full: Computed, small: Computed | None, cut: Narrowing) -> list[npt.NDArray[Any]]:
        """Return the results of the call of the `full` model, or of its slice's, `small`."""
        ran = small or full
        made = iter(
            self._tensor(given, full.tensors[k].state if small else None, cut.tensors[k])
            for k, given in enumerate(ran.tensors)
        )
        values = [_filled(x, made) for x in ran.args]
        named = {name: _filled(x, made) for name, x in ran.kwargs.items()}
        for name, value in cut.arguments.items():
            place = ran.call.operation.arguments[name][0]
            if place < len(values):
                values[place] = value
            else:
                named[name] = value
        call = Call(ran.func, tuple(values), named)
        elsewhere = call.name in FUSED - ON_CPU
        call.out = by_formula(call) if elsewhere else call.func(*call.args, **call.kwargs)
        return [x.numpy() for x in call.outputs()]

    def _tensor(self, given: Given, full: State | None, cut: dict[int, Ints]) -> Tensor:
        """Return a tensor for `given`: the product of a value for each of an element's positions.

        `cut` has the positions that are taken of some dimensions, those of the `full` state of a slice.
        """
        lines = [
            self._along(*pair, d, given.state.is_activation)
            for d, pair in enumerate(zip(given.shape, given.state.dims, strict=True))
        ]
        for d, chosen in cut.items():
            lines[d] = lines[d][chosen if full is None else self._left(full.dims[d], chosen)]
        out = np.ones(1)
        for line in lines:
            if line.size != 1:
                out = (out[:, None] * line).ravel()
        value = torch.from_numpy(out.reshape([line.size for line in lines]))
        if given.dtype.is_floating_point:
            return value
        return value > 1 if given.dtype == torch.bool else torch.zeros_like(value, dtype=given.dtype)

    def _along(self, size: int, dim: Dim, d: int, is_activation: bool) -> npt.NDArray[np.float64]:
        """Return the factors of the positions along dimension `d`."""
        if dim is FREE or size == 1:
            return np.ones(size)
        if not isinstance(dim, np.ndarray):
            return self._of_place[(np.arange(size) + 37 * d) % self._of_place.size]
        values = self._of_label[dim]
        return values if is_activation else values * self._stays[dim]

    def _left(self, dim: Dim, chosen: Ints) -> Ints:
        """Return where the `chosen` positions of the full model are in the slice."""
        if not isinstance(dim, np.ndarray):
            return chosen
        stays = self._stays[dim]
        left: Ints = (np.cumsum(stays) - 1)[chosen[stays[chosen]]]
        return left


def _filled(value: Any, made: Any) -> Any:
    """Return an argument with each :class:`Given` in it replaced by the next of the tensors `made`."""
    if isinstance(value, Given):
        return next(made)
    if type(value) in (list, tuple) and any(isinstance(x, Given) for x in value):
        return [next(made) if isinstance(x, Given) else x for x in value]
    return value


def _alike(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    with np.errstate(invalid="ignore"):
        largest = np.abs(a).max(initial=0)
        return bool(((np.abs(a - b) <= TOLERANCE * largest) | (a == b) | (np.isnan(a) & np.isnan(b))).all())
