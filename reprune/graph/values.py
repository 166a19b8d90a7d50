"""Check with values that a call of the slice gives what the call of the full model gives.

Labels say which positions of the slice's tensors are which of the full model's; the rules that say so could
be wrong in the same way in both runs. So a call that computes is run twice on made-up values, in full and
sliced, and its results have to agree at the positions that stay. What was removed may have any value in an
activation, and is zero in a weight: that is what a pruned network equals. By induction over the calls, the
slice then computes what the full network computes without the removed channels.

Calls run on few numbers: dimensions without labels that an operation treats alike are cut to one position.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..aliases import Ints
from .given import Given
from .narrowing import Narrowing, narrowing_of
from .propagation import Propagation
from .rules import FACTORIES, is_movement, is_pointwise
from .rules_attention import FUSED, ON_CPU, by_formula
from .state import FREE, Call, Dim, State, storage_of

Mask = npt.NDArray[np.bool_]
BATCH_NORMS = frozenset(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training".split()
)
TOLERANCE = 1e-9
"""Relative to the largest value: sums in float64 in another order."""


class Computed(NamedTuple):
    """A call that computes, so that it can be run on other values."""

    name: str
    func: Any
    args: tuple[Any, ...]
    """With tensors replaced by :class:`Given`, as in `kwargs`."""
    kwargs: dict[str, Any]
    numbers: list[Any]
    """The plain values among the arguments; of a convolution without its groups, which come last."""
    tensors: list[Given]
    outs: list[Given]

    @property
    def call(self) -> Call:
        return Call(self.func, self.args, self.kwargs)


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


def computed(call: Call, states: Sequence[State], known: Propagation) -> Computed | None:
    """Return what `call` was, with tensors in `states` before it; None for calls that are not checked here.

    Those that only move values are checked on their own; those that draw have other values (of attention it
    is checked what it gives without dropout); what is not ATen's may read memory by values.
    """
    operation = call.operation
    draws = operation.draws and call.name not in FUSED
    plain = operation.text.startswith("aten.") and not (draws or operation.asks_data)
    if known.unread and any(storage_of(x) in known.unread for x in call.outputs()):
        return None  # nothing reads it, or nothing that it was made of may leave
    if not plain or not states or call.name in FACTORIES or is_movement(call):
        return None
    tensors = [Given(x.shape, x.dtype, s) for x, s in zip(call.tensors(), states, strict=True)]
    outs = [Given(x.shape, x.dtype, known.state(x)) for x in call.outputs()]
    left = iter(tensors)
    args = tuple([_replaced(x, left) for x in call.args])
    kwargs = {name: _replaced(x, left) for name, x in call.kwargs.items()} if call.kwargs else {}
    numbers = call.scalars()
    if call.name == "convolution":
        numbers.pop()
    return Computed(call.name, call.func, args, kwargs, numbers, tensors, outs)


def _replaced(value: Any, left: Iterator[Given]) -> Any:
    """Return an argument with each tensor in it replaced by the next of what is `left`."""
    if isinstance(value, Tensor):
        return next(left)
    if value.__class__ is list or value.__class__ is tuple:
        return [next(left) if isinstance(x, Tensor) else x for x in value]
    return value


class Values:
    """Made-up values of positions, by label where there is one; `stays` [labels] says what the slice has.

    `given` are the labels of the model's own tensors and those of the slice's, which were made of them.
    """

    def __init__(self, stays: Mask, given: Iterable[tuple[Ints, Ints]]) -> None:
        self._stays = np.append(stays, True)  # the last entry is for FIXED positions
        self._masks: dict[int, Mask] = {}
        draw = np.random.default_rng(0)
        self._of_label = draw.uniform(0.5, 1.5, stays.size + 1)
        self._rests: dict[int, Ints] = {}
        self._stay_alike: dict[tuple[int, int], bool] = {}
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
        return not (same or self._is_evident(full, small, numbers)) and self._run_differently(full, small)

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

    def _mask(self, ids: Ints) -> Mask:
        """Return which of the labels `ids` stay; the same few arrays are in many calls."""
        mask = self._masks.get(id(ids))
        if mask is None:
            mask = self._masks[id(ids)] = self._stays[ids]
        return mask

    def _rest(self, ids: Ints) -> Ints:
        """Return those of the labels `ids` that stay."""
        rest = self._rests.get(id(ids))
        if rest is None:
            rest = self._rests[id(ids)] = ids[self._mask(ids)]
        return rest

    def _is_evident(self, full: Computed, small: Computed, same_numbers: bool) -> bool:
        """Return whether the same places stay of all that meets, by what the operation is.

        Of elementwise ones PyTorch says what meets; a convolution sums over what its kernels are multiplied
        with, and where these are zero a removed channel may have any value.
        """
        if not same_numbers:
            return False
        call, tensors, out = full.call, full.tensors, full.outs[0]
        if call.name in BATCH_NORMS:
            pairs = [(tensors[0].state.dims[1], out.state.dims[1])]
            pairs += [(given.state.dims[0], out.state.dims[1]) for given in tensors[1:]]
        elif call.name in ("mm", "addmm"):
            *added, one, other = tensors
            if any(len(given.shape) != 1 or given.shape[0] == 1 < out.shape[1] for given in added):
                return False
            pairs = [(one.state.dims[1], other.state.dims[0]), (one.state.dims[0], out.state.dims[0])]
            pairs += [(given.state.dims[-1], out.state.dims[1]) for given in (*added, other)]
        elif call.name == "convolution" and call["groups"] == 1:
            images, kernel, *bias = (given.state.dims for given in tensors)
            o, i = (1, 0) if call["transposed"] else (0, 1)
            channels = len(kernel) - 1  # from the end
            pairs = [(images[-channels], kernel[i]), (kernel[o], out.state.dims[-channels])]
            pairs += [(line[0], out.state.dims[-channels]) for line in bias]
        elif _is_depthwise(full) and _is_depthwise(small):
            images, kernel, *bias = (given.state.dims for given in tensors)
            channels = len(kernel) - 1
            pairs = [(line[0], out.state.dims[-channels]) for line in (kernel, *bias)]
            pairs.append((images[-channels], kernel[0]))
        elif is_pointwise(call) and len(full.outs) == 1:
            pairs = [
                (given.state.dims[-k], out.state.dims[-k])
                for given in tensors
                for k in range(1, len(given.shape) + 1)
                if given.shape[-k] > 1 or out.shape[-k] == 1
            ]
        else:
            return False
        return all(a is b or self._stays_alike(a, b) for a, b in pairs)

    def _stays_alike(self, a: Dim, b: Dim) -> bool:
        """Return whether the same positions stay of two dimensions of one size."""
        key = (id(a), id(b))
        if key not in self._stay_alike:
            masks = [self._mask(dim) for dim in (a, b) if isinstance(dim, np.ndarray)]
            alike = masks[0].tobytes() == masks[1].tobytes() if len(masks) == 2 else bool(np.all(masks))
            self._stay_alike[key] = alike
        return self._stay_alike[key]

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


def _is_depthwise(computed: Computed) -> bool:
    """Return whether each channel of the result comes from one channel, the one at its place."""
    if computed.name != "convolution":
        return False
    kernel, groups = computed.tensors[1].shape, computed.call["groups"]
    return bool(kernel[0] == groups and kernel[1] == 1)


def _alike(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    if a.dtype.kind != "f":
        return np.array_equal(a, b)
    with np.errstate(invalid="ignore"):
        largest = np.abs(a).max(initial=0)
        return bool(((np.abs(a - b) <= TOLERANCE * largest) | (a == b) | (np.isnan(a) & np.isnan(b))).all())
