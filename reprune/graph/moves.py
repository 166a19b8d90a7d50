"""Check by real positions what a rule says of an operation that only moves values.

The rules of views and the like say where labels go, and both the trace and the certificate follow them, so a
rule that is wrong in the same way in both runs would pass. So such an operation is run here on position
numbers, and each number must arrive where the rule says that its label is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..aliases import Ints
from .propagation import Propagation
from .state import Call, State

Moved = tuple[npt.NDArray[np.int64], tuple[int, ...]]
"""The positions that arrive in an output, of length 1 where they are all the same, and where they are not."""


class Moves:
    """What operations did to positions in a run; equal calls are run once."""

    def __init__(self) -> None:
        self._known: dict[Any, list[Moved]] = {}

    def check(self, known: Propagation, call: Call, x: Tensor, state: State, said: int) -> None:
        """Pin the labels of `x`, in `state` before, that arrive elsewhere than at the labels of the outputs.

        Edges from number `said` on are those that the rule stated.
        """
        outs = call.outputs()
        if not x.numel() or not all(out.numel() for out in outs):
            return  # the rule pins
        whole = [known.state(out).dims for out in outs]
        for k in state.labelled():
            labels = state.labels(k)
            if labels is None or x.shape[k] < 2:
                continue
            for (positions, along), dims in zip(self._moved(call, x, k), whole, strict=True):
                here = labels[positions]
                if not any(_is_along(known, here, dims[d], d, said) for d in along):
                    known.constraints.pin(labels, f"is moved by {call.func} otherwise than its rule says")
                    break

    def _moved(self, call: Call, x: Tensor, k: int) -> list[Moved]:
        """Run `call` on the positions along dimension `k` of `x`."""
        form = call.form(x)
        key = None if form is None else (k, form)
        if key in self._known:
            return self._known[key]
        shape = [1] * x.dim()
        shape[k] = x.shape[k]
        positions = (
            torch.arange(x.shape[k], device="cpu" if x.is_meta else x.device).view(shape).expand(x.shape)
        )
        moved = [_reduced(part) for part in call.on(x, positions)]
        if key is not None:
            self._known[key] = moved
        return moved


def _reduced(part: Tensor) -> Moved:
    for d in range(part.dim()):
        if part.shape[d] > 1 and part.stride(d) == 0:
            part = part.narrow(d, 0, 1)
    for d in range(part.dim()):
        if part.shape[d] > 1 and bool((part == part.narrow(d, 0, 1)).all()):
            part = part.narrow(d, 0, 1)
    return part.cpu().numpy().copy(), tuple(d for d in range(part.dim()) if part.shape[d] > 1)


def _is_along(known: Propagation, here: Ints, ids: Any, d: int, said: int) -> bool:
    """Return whether each of the labels `here` is that along dimension `d`, or is coupled with it."""
    if not isinstance(ids, np.ndarray) or ids.size != here.shape[d]:
        return False
    there = np.broadcast_to(ids.reshape([-1 if e == d else 1 for e in range(here.ndim)]), here.shape)
    apart = here != there
    return not apart.any() or _coupled(known, here[apart], there[apart], said)


def _coupled(known: Propagation, a: Ints, b: Ints, said: int) -> bool:
    """Return whether the rule itself coupled each `a[i]` with `b[i]`."""
    edges = known.constraints.edges[said:]
    pairs = [_pairs(x, y) for one, other in edges for x, y in ((one, other), (other, one))]
    return bool(pairs) and bool(np.isin(_pairs(a, b), np.concatenate(pairs)).all())


def _pairs(a: Ints, b: Ints) -> npt.NDArray[np.int64]:
    """Return a number for each pair of labels."""
    pairs: npt.NDArray[np.int64] = (a.astype(np.int64) << 32) | b
    return pairs
