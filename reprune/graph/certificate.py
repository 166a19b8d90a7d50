"""The certificate: a sliced model is traced again, and must be the network that was traced.

One trace cannot tell a constant size from a derived one.  So the model is sliced and traced again with the
labels that it kept: the same positions must unite, no new pin may appear, and the same operations
must run with the same scalars.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from .groups import ChannelGroup
from .labels import FIXED, Ints, fixed
from .slicing import named_tensors, sliced_copy
from .trace import Trace, run
from .traced import Example, TracedModel, without_values

Mask = npt.NDArray[np.bool_]
Edge = tuple[Ints, Ints]


@dataclass(frozen=True)
class Failure:
    """Why a sliced model is not the network that was traced, and the atoms at fault where they are known."""

    reason: str
    atoms: frozenset[int] = frozenset()
    suspects: frozenset[int] = frozenset()
    """Where they are not: those in the activations at which the model failed."""


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
    failure = _looked_at(model, example, traced, wide, follow=True)
    if failure is None and not np.array_equal(wide, kept):
        failure = _looked_at(model, example, traced, kept, follow=False)
    return failure


def _looked_at(
    model: nn.Module, example: Example, traced: TracedModel, kept: Mask, follow: bool
) -> Failure | None:
    """Trace the slice again, without values if the model was traced so: code that reads a value would have
    failed there."""
    stays = kept[traced.atoms.of]
    labels = {key: line[stays[line]] for key, line in traced.labels.items()} if follow else {}
    trace: Trace | None = None
    try:
        small = sliced_copy(model, traced.slices(kept), traced.shapes)
        trace = Trace(named_tensors(small), labels, traced.choices)
        if traced.shapes:
            example = without_values(example)
        problem = run(small, example, trace)
    except TimeoutError:
        raise
    except Exception as error:  # whatever user code raises when its channels are gone
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
        first = (str(error).splitlines() or [""])[0]
        reason = f"the sliced model fails with {type(error).__name__}: {first}"
        if trace is None or not follow:
            return Failure(reason)
        bad = _wrong_edges(trace, traced, stays) | _new_pins(trace, traced)  # on the way there
        return Failure(reason, frozenset(bad), _at_hand(trace, traced))
    if problem != traced.training_problem:
        return Failure(f"the sliced model fails in training mode with {problem}")
    if follow:
        bad = _wrong_edges(trace, traced, stays) | _new_pins(trace, traced)
        if bad:
            return Failure(
                "channels are taken by their number or by a fixed size (the certificate)", frozenset(bad)
            )
    if traced.data_dependent and not follow:
        return None  # which calls touch channels is not known without labels
    return _other_calls(trace, traced)


def _at_hand(trace: Trace, traced: TracedModel) -> frozenset[int]:
    """The atoms in the activations that the last operation of `trace` was given."""
    states = [trace.known.state(x) for x in trace.at]
    lines = [d for state in states if state.flows for d in state.dims if isinstance(d, np.ndarray)]
    return frozenset(atom for line in lines for atom in traced.atoms.of[line[line != FIXED]].tolist())


def _wrong_edges(trace: Trace, traced: TracedModel, stays: Mask) -> set[int]:
    """Atoms in which something else united than in the full model without what left.

    That each edge joins an atom to itself is not enough: a roll by half of the channels exchanges two
    members of an atom, and with other channels gone it may exchange none.
    """
    of = traced.atoms.of
    bad: set[int] = set()
    free = _may_leave(traced)
    for a, b in trace.known.ledger.edges:
        real = (a != FIXED) & (b != FIXED)
        x, y = of[a[real]], of[b[real]]
        apart = (x != y) & (free[x] | free[y])  # those that must live anyway may meet
        bad.update(x[apart].tolist(), y[apart].tolist())
    before, after = (_united(traced, edges, stays) for edges in (traced.edges, trace.known.ledger.edges))
    for expected, found in zip(before, after, strict=False):
        for left, new in zip(expected, found, strict=True):
            if not np.array_equal(left, new):
                wrong = left[left != new] if left.shape == new.shape else left
                bad.update(of[wrong[wrong != FIXED]].tolist())
    return bad


def _may_leave(traced: TracedModel) -> Mask:
    """[atoms + 1] which atoms are not pinned; the last entry is that of :data:`FIXED` positions."""
    free = np.ones(traced.atoms.count + 1, dtype=bool)
    free[list(traced.atoms.pinned)] = False
    free[FIXED] = False
    return free


def _united(traced: TracedModel, edges: Iterable[Edge], stays: Mask) -> Iterator[Edge]:
    """What is left of `edges` where the labels `stays` [labels] are; where the data decide how much runs,
    only of those that touch channels which may leave, as the others have no counterparts in another run."""
    free, of = _may_leave(traced), np.append(traced.atoms.of, fixed(1))
    for edge in edges:
        a, b = (line[(line == FIXED) | stays[line]] for line in edge)
        if not traced.data_dependent or free[of[a]].any() or free[of[b]].any():
            yield a, b


def _new_pins(trace: Trace, traced: TracedModel) -> set[int]:
    pins = [labels[labels != FIXED] for labels, _ in trace.known.ledger.pins]
    pinned = {atom for labels in pins for atom in traced.atoms.of[labels].tolist()}
    return pinned - traced.atoms.pinned.keys()


def _touching(traced: TracedModel, log: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The calls of `log` that touch channels which may leave: how many boxes remain is up to the data."""
    free, of = _may_leave(traced), np.append(traced.atoms.of, fixed(1))
    known: dict[int, bool] = {}
    for touched, *_ in log:
        for line in touched:
            if id(line) not in known:
                known[id(line)] = bool(free[of[line]].any())
    return [call for call in log if any(known[id(line)] for line in call[0])]


def _other_calls(trace: Trace, traced: TracedModel) -> Failure | None:
    """Compare what ran; where the data decides how much runs, only what touches channels."""
    old, new = traced.log, trace.log
    if traced.data_dependent:
        old, new = (_touching(traced, log) for log in (old, new))
    for before, after in zip(old, new, strict=False):
        if before[1:] != after[1:]:
            return Failure(f"its calls depend on the number of channels: {before[1:]} becomes {after[1:]}")
    if len(old) != len(new):
        return Failure(f"it runs {len(new)} operations instead of {len(old)} when channels are gone")
    return None
