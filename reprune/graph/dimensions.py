"""Tell where whole dimensions go in common views, without running them on position numbers."""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import prod

from torch import Tensor

from .state import Call

Places = dict[int, int]
"""{dimension of the input: the dimension of the output that is the same positions in the same order}."""


def places_of(call: Call, x: Tensor, out: Tensor, wanted: Collection[int]) -> Places | None:
    """Return where the dimensions `wanted` of `x` are in `out`; None where one may not be there as it was."""
    find = _FINDERS.get(call.name)
    if find is None or any(x.shape[k] < 2 for k in wanted):
        return None
    places = find(call, x, out)
    if any(k not in places or out.shape[places[k]] != x.shape[k] for k in wanted):
        return None
    return {k: places[k] for k in wanted}


def _same(call: Call, x: Tensor, out: Tensor) -> Places:
    return {k: k for k in range(x.dim())}


def _reversed(call: Call, x: Tensor, out: Tensor) -> Places:
    return {k: x.dim() - 1 - k for k in range(x.dim())}


def _exchanged(call: Call, x: Tensor, out: Tensor) -> Places:
    a, b = call["dim0"] % x.dim(), call["dim1"] % x.dim()
    return {k: b if k == a else a if k == b else k for k in range(x.dim())}


def _permuted(call: Call, x: Tensor, out: Tensor) -> Places:
    return {k % x.dim(): place for place, k in enumerate(call["dims"])}


def _expanded(call: Call, x: Tensor, out: Tensor) -> Places:
    return {k: k + out.dim() - x.dim() for k in range(x.dim())}


def _selected(call: Call, x: Tensor, out: Tensor) -> Places:
    gone = call["dim"] % x.dim()
    return {k: k - (k > gone) for k in range(x.dim()) if k != gone}


def _narrowed(call: Call, x: Tensor, out: Tensor) -> Places:
    return {k: k for k in range(x.dim()) if k != call["dim"] % x.dim()}


def _reshaped(call: Call, x: Tensor, out: Tensor) -> Places:
    """Match dimensions that equally many positions precede, and that are equally long."""
    begins = {prod(out.shape[:place]): place for place in range(out.dim()) if out.shape[place] > 1}
    found = {k: begins.get(prod(x.shape[:k])) for k in range(x.dim()) if x.shape[k] > 1}
    return {k: place for k, place in found.items() if place is not None}


_FINDERS: dict[str, Callable[[Call, Tensor, Tensor], Places]] = {
    "alias": _same,
    "detach": _same,
    "t": _reversed,
    "transpose": _exchanged,
    "permute": _permuted,
    "expand": _expanded,
    "select": _selected,
    "slice": _narrowed,
    **dict.fromkeys("view reshape _unsafe_view squeeze unsqueeze".split(), _reshaped),
}
