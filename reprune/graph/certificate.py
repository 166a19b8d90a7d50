"""The certificate: a sliced model is traced again, and must be the network that was traced.

One trace cannot tell a constant size from a derived one.  So the model is sliced and traced again with the
kept atoms as labels: every edge must join an atom to itself, no new pin may appear, and the same operations
must run with the same scalars.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from .groups import ChannelGroup
from .labels import FIXED
from .slicing import named_tensors, sliced_copy
from .trace import Trace, run
from .traced import Example, TracedModel

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Failure:
    """Why a sliced model is not the network that was traced, and the atoms at fault where they are known."""

    reason: str
    atoms: frozenset[int] = frozenset()


def certify(
    model: nn.Module, example: Example, traced: TracedModel, groups: Sequence[ChannelGroup], kept: Mask
) -> Failure | None:
    """Check the slice of `model` that keeps the atoms `kept` [atoms]; None if it is right.

    A dimension of size 1 broadcasts and shows no labels, so where a single atom of a group is kept the
    labels are followed with two, and the slice itself is only run and compared call by call.
    """
    wide = kept.copy()
    for group in groups:
        if kept[group.atoms].sum() < 2:
            wide[group.atoms[:2]] = True
    wide = traced.filled(wide, least=2)
    failure = _retrace(model, example, traced, wide, follow=True)
    if failure is None and not np.array_equal(wide, kept):
        failure = _retrace(model, example, traced, kept, follow=False)
    return failure


def _retrace(
    model: nn.Module, example: Example, traced: TracedModel, kept: Mask, follow: bool
) -> Failure | None:
    slices = traced.slices(kept)
    labels = {}
    for (name, dim), line in traced.labels.items():
        atoms = traced.atoms.of[line]
        labels[name, dim] = atoms[kept[atoms]]
    try:
        small = sliced_copy(model, slices)
        trace = Trace(named_tensors(small), labels if follow else {})
        problem = run(small, example, trace)
    except Exception as error:  # whatever user code raises when its channels are gone
        return Failure(f"the sliced model fails with {type(error).__name__}: {str(error).splitlines()[0]}")
    if problem != traced.training_problem:
        return Failure(f"the sliced model fails in training mode with {problem}")
    if follow:
        bad = _wrong_edges(trace) | _new_pins(trace, traced)
        if bad:
            return Failure(
                "channels are taken by their number or by a fixed size (the certificate)", frozenset(bad)
            )
    if traced.data_dependent and not follow:
        return None  # which calls touch channels is not known without labels
    return _other_calls(trace, traced)


def _wrong_edges(trace: Trace) -> set[int]:
    bad: set[int] = set()
    for a, b in trace.known.ledger.edges:
        wrong = (a != b) & (a != FIXED) & (b != FIXED)
        bad.update(a[wrong].tolist(), b[wrong].tolist())
    return bad


def _new_pins(trace: Trace, traced: TracedModel) -> set[int]:
    pinned = {atom for labels, _ in trace.known.ledger.pins for atom in labels.tolist() if atom != FIXED}
    return pinned - traced.atoms.pinned.keys()


def _other_calls(trace: Trace, traced: TracedModel) -> Failure | None:
    """Compare what ran; where the data decides how much runs, only what touches channels."""
    old, new = traced.log, trace.log
    if traced.data_dependent:
        old, new = ([call for call in log if call[0]] for log in (old, new))
    for before, after in zip(old, new, strict=False):
        if before[1:] != after[1:]:
            return Failure(f"its calls depend on the number of channels: {before[1:]} becomes {after[1:]}")
    if len(old) != len(new):
        return Failure(f"it runs {len(new)} operations instead of {len(old)} when channels are gone")
    return None
