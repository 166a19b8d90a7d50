"""Compose what two plans, one after the other, keep.

A plan decides about layers of one kind or one scope, but cuts all that goes with them. So the outputs of a
layer that one of the plans decided about may have been cut by the other one as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from ..aliases import Ints

Slices = Mapping[str, Mapping[int, Ints]]


class Kept(NamedTuple):
    """What a plan keeps: the outputs of layers, of how many channels, and positions of tensors."""

    keep: Mapping[str, Ints]
    channels: Mapping[str, int]
    slices: Slices


def composed_slices(first: Slices, then: Slices) -> dict[str, dict[int, Ints]]:
    """Return what is left of the full tensors by `first` and `then`."""
    slices = {name: dict(dims) for name, dims in first.items()}
    for name, dims in then.items():
        mine = slices.setdefault(name, {})
        for dim, kept in dims.items():
            mine[dim] = mine[dim][kept] if dim in mine else kept
    return slices


def composed_keep(
    first: Kept, then: Kept, slices: Slices, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, Ints], dict[str, int]]:
    """Return {layer: what is left of all of its outputs} and {layer: how many there were}.

    `slices` are the composed ones and `shapes` those of the full tensors. A layer is left out if its tensors
    do not tell what the plan that did not decide about it has cut.
    """
    keep: dict[str, Ints] = {}
    channels = {**then.channels, **first.channels}
    for name in dict.fromkeys((*first.keep, *then.keep)):
        if name in first.keep and name in then.keep:
            keep[name] = first.keep[name][then.keep[name]]
            continue
        mine, other = (first, then) if name in first.keep else (then, first)
        if not any(_is_of(tensor, name) for tensor in other.slices):
            keep[name] = mine.keep[name]
            continue
        places = list(_outputs(name, mine, slices, shapes))
        vectors = [place for place in places if len(shapes[place[0]]) == 1]
        found = [(slices[tensor][dim], shapes[tensor][dim]) for tensor, dim in vectors or places]
        if found and all(np.array_equal(kept, found[0][0]) for kept, _ in found):
            keep[name], channels[name] = found[0]
    return keep, channels


def _is_of(tensor: str, layer: str) -> bool:
    """Return whether the tensor of this name is one of the layer's own, or a part of one."""
    own = tensor.rpartition(".")[0]
    return own == layer or own.startswith(f"{layer}.parametrizations." if layer else "parametrizations.")


def _outputs(
    name: str, plan: Kept, slices: Slices, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, int]]:
    """Yield (tensor, dimension) where the layer's tensors are cut as `plan` cuts its outputs.

    If it leaves all of them, nothing tells the outputs of a weight from its inputs; a bias has only those.
    """
    kept, whole = plan.keep[name], plan.keep[name].size == plan.channels[name]
    for tensor, dims in slices.items():
        if _is_of(tensor, name):
            for dim in dims:
                cut = plan.slices.get(tensor, {}).get(dim)
                if np.array_equal(kept, cut) if cut is not None else whole and len(shapes[tensor]) == 1:
                    yield tensor, dim
