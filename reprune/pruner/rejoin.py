"""Make the saved states of all processes of a sharded training one that this process can load.

Each of them has its part of what is stored at full size, and says which. As many other processes, or one
with a model in one piece, need other parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..arguments import shown
from ..modules.sharded import Piece
from ..strict_json import is_int

Place = Mapping[int, tuple[int, int]]
"""{dimension: where a part of a tensor begins and ends}; other dimensions are complete."""
ALL = "give load_state_dict the states of all processes that trained"
OWN = ("store", "places", "history")
"""What differs from process to process; the history by its seconds."""


def places_of(keys: Sequence[str], pieces: Mapping[str, Piece]) -> dict[str, Place]:
    """Return where the parts lie that this process has of stored tensors, for those that are in parts."""
    found = {key: piece_of(key, pieces).ranges() for key in keys}
    return {key: place for key, place in found.items() if place}


def piece_of(key: str, pieces: Mapping[str, Piece]) -> Piece:
    """Return what this process has of the tensor with a key of the store: `model/name`, `state/kind/name`.

    Raises `KeyError` for a key of another model.
    """
    kind, _, name = key.partition("/")
    return pieces[name.partition("/")[2] if kind == "state" else name]


def rejoined(saved: Any, pieces: Mapping[str, Piece]) -> Any:
    """Return `saved` for this process: one state as it is if it has the parts of this process.

    Args:
        saved: A state, or a list of the states of all processes of a training, in any order.
        pieces: What this process holds of each tensor of the full model.

    Raises:
        ValueError: The states are of different trainings or epochs, or some of them are not there.
        TypeError: `saved` is neither a state nor a list of them.
    """
    one = isinstance(saved, Mapping)
    if not one and (not isinstance(saved, Sequence) or isinstance(saved, str)):
        raise TypeError(f"state: expected what state_dict returned, or a list of such; got {shown(saved)}")
    states = [saved] if one else list(saved)
    if not states or not all(isinstance(state, Mapping) for state in states):
        raise TypeError(
            "state: expected a list of what state_dict returned on each process; got another list"
        )
    first = states[0]
    if not all(isinstance(state.get("store"), Mapping) for state in states):
        return first  # which is found to be damaged
    keys = [key for key in first["store"] if _known(key, pieces)]
    if one and ("places" not in first or _equal(first["places"], places_of(keys, pieces))):
        return first
    for number, state in enumerate(states):
        _check_whole(state, number)
    _check_alike(states)
    store = dict(first["store"])
    for key in keys:
        parts = [(state.get("places", {}).get(key, {}), state["store"][key]) for state in states]
        store[key] = _part(key, parts, piece_of(key, pieces))
    return {**first, "store": store, "places": places_of(keys, pieces)}


def _known(key: Any, pieces: Mapping[str, Piece]) -> bool:
    try:
        piece_of(key, pieces)
    except (AttributeError, KeyError):
        return False
    return True


def _check_whole(state: Mapping[str, Any], number: int) -> None:
    """Raise `ValueError` if what is stored are no tensors with values, or not said to be at places."""
    for key, values in state["store"].items():
        if not isinstance(values, Tensor) or values.layout != torch.strided or values.is_meta:
            raise _damaged(number, f"what it stores as {key!r} is no tensor with values")
    places = state.get("places", {})
    if not isinstance(places, Mapping) or not all(map(_is_place, places.values())):
        raise _damaged(number, "it does not say where its parts lie")


def _is_place(place: Any) -> bool:
    return isinstance(place, Mapping) and all(
        is_int(dim) and isinstance(ends, Sequence) and len(ends) == 2 and all(map(is_int, ends))
        for dim, ends in place.items()
    )


def _damaged(number: int, reason: str) -> ValueError:
    return ValueError(
        f"state: expected what state_dict returned; number {number} is damaged ({reason}); nothing was loaded"
    )


def _check_alike(states: Sequence[Mapping[str, Any]]) -> None:
    """Raise `ValueError` unless the states are those of one training after one epoch."""
    first = states[0]
    for number, state in enumerate(states[1:], start=1):
        for key in sorted((first.keys() | state.keys()) - set(OWN)):
            if not _equal(first.get(key), state.get(key)):
                raise ValueError(
                    f"state: expected states of one training after the same epoch; number {number} differs "
                    f"from the first one in {key!r}; nothing was loaded"
                )
        if first["store"].keys() != state["store"].keys():
            raise ValueError(
                f"state: expected states of one training; number {number} stores other tensors than the "
                "first one; nothing was loaded"
            )


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one.cpu(), other.cpu())
    try:
        return bool(one == other)
    except (RuntimeError, ValueError, TypeError):  # tensors and arrays, in a damaged state
        return False


def _part(key: str, parts: Sequence[tuple[Place, Tensor]], piece: Piece) -> Tensor:
    """Return what `piece` is of a tensor that lies in `parts`; several may be the same."""
    wanted = _box(piece.ranges(), piece.shape)
    out = parts[0][1].new_empty(piece.size())
    copied: set[tuple[tuple[int, int], ...]] = set()
    for place, values in parts:
        box = _box(place, piece.shape)
        if tuple(values.shape) != tuple(end - begin for begin, end in box):
            raise ValueError(f"state: {key!r} has shape {tuple(values.shape)}, which is not where it says")
        common = tuple((max(a, begin), min(b, end)) for (a, b), (begin, end) in zip(box, wanted, strict=True))
        if common in copied or any(begin >= end for begin, end in common):
            continue
        copied.add(common)
        out[_slices(common, wanted)] = values[_slices(common, box)]
    if sum(prod(end - begin for begin, end in box) for box in copied) != out.numel():
        raise ValueError(
            f"state: parts of {key!r} are missing, which other processes had; {ALL}, not of {len(parts)}; "
            "nothing was loaded"
        )
    return out


def _box(place: Place, shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
    return tuple(tuple(place.get(dim, (0, size))) for dim, size in enumerate(shape))  # type: ignore[misc]


def _slices(box: Sequence[tuple[int, int]], inside: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
    """Return where `box` is in a tensor that has the range `inside`."""
    return tuple(
        slice(begin - origin, end - origin) for (begin, end), (origin, _) in zip(box, inside, strict=True)
    )
