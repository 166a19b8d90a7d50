"""Certify a slice: trace the sliced model again and require the same network.

One trace cannot distinguish a constant size from a derived one. So the model is sliced and traced again with
the labels that it kept: the same positions must unite, no new pin may appear, and the same operations must
run with the same scalars.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from ..aliases import Ints
from ..modules.heads import for_any_heads
from ..modules.norms import for_any_width, norms_of
from ..modules.slicing import named_tensors, sliced_copy
from .given import Given
from .groups import ChannelGroup
from .labels import FIXED, LABEL, fixed, is_left
from .preserving import preserving
from .state import FREE
from .steps import Edge, Step, partings, stretches
from .traced import Example, TracedModel, device_of, without_values
from .tracer import Tracer, run
from .values import Values

AtomMask = npt.NDArray[np.bool_]

FAILS = "the sliced model fails with"
"""Prefix of the reason where the run of the slice ends early, so that nothing behind is known."""


@dataclass(frozen=True)
class Fault:
    """One place at which a sliced model is not the network that was traced."""

    reason: str
    atoms: frozenset[int] = frozenset()
    """Atoms in use where the runs differ."""
    place: int | None = None
    """Index of the stretch of steps, if it is known."""


@dataclass(frozen=True)
class Failure:
    """Why a sliced model is not the network that was traced."""

    faults: tuple[Fault, ...]

    @property
    def reason(self) -> str:
        return self.faults[0].reason


def certify(
    model: nn.Module, example: Example, traced: TracedModel, groups: Sequence[ChannelGroup], kept: AtomMask
) -> Failure | None:
    """Check the slice of `model` that keeps the atoms `kept` [atoms]; return None if it is right.

    A dimension of size 1 broadcasts and shows no labels, so where a single atom of a group is kept the
    labels are followed with two, and the slice itself is only run and compared call by call.

    A slice that runs differently is tried twice: on the second try, caches outside of the model are filled
    for the sizes of the slice, as they were for the full model.
    """
    failure = _certify(model, example, traced, groups, kept)
    if failure is not None and any(fault.place is not None for fault in failure.faults):
        failure = _certify(model, example, traced, groups, kept)
    return failure


def _certify(
    model: nn.Module, example: Example, traced: TracedModel, groups: Sequence[ChannelGroup], kept: AtomMask
) -> Failure | None:
    wide = kept.copy()
    for group in groups:
        if kept[group.atoms].sum() < 2:
            wide[group.atoms[:2]] = True
    wide = traced.filled(wide, minimum=2)
    failure = _check_slice(model, example, traced, wide, follow=True)
    if failure is None and not np.array_equal(wide, kept):
        failure = _check_slice(model, example, traced, kept, follow=False)
    return failure


def _check_slice(
    model: nn.Module, example: Example, traced: TracedModel, kept: AtomMask, follow: bool
) -> Failure | None:
    """Trace the slice again.

    The trace has no values if the model's had none: code that reads a value would have failed there.
    """
    stays = kept[traced.atoms.atom_of]
    labels = {key: left for key, _, left in traced.left(stays, LABEL)} if follow else {}
    trace: Tracer | None = None
    failed = ""
    try:
        with preserving(model, example) as preserved:
            slices, widths = traced.slices(kept), traced.widths(kept)
            small = sliced_copy(model, slices, widths, traced.shapes)
            if not traced.own_classes:  # norms are those of the model: a GroupNorm may have one group now
                small = for_any_width(for_any_heads(small), norms_of(model))
            device = device_of(model, example) if traced.shapes else None
            trace = Tracer(named_tensors(small), labels, preserved, traced.guesses, device)
            how = run(small, without_values(example) if traced.shapes else example, trace, traced.twice)
            if _kind(how.problem) != _kind(traced.training_problem):
                failed = f"the sliced model fails in training mode with {how.problem}"
    except TimeoutError:
        raise
    except Exception as error:  # whatever user code raises when its channels are gone
        error = error.__cause__ if isinstance(error.__cause__, Exception) else error
        first = (str(error).splitlines() or [""])[0]
        failed = f"{FAILS} {type(error).__name__}: {first}"
    if trace is None:
        return Failure((Fault(failed),))
    if traced.data_dependent and not follow:  # which calls touch channels is not known without labels
        faults = []
    else:
        faults = [*_apart(trace, traced), *_new_pins(trace, traced)]
        faults += _partings(trace, traced, stays if follow else None, complete=not failed)
        if follow and not (failed or faults):
            given = [(ids, labels[key]) for key, ids in traced.labels.items()]
            faults += _other_values(trace, traced, Values(stays, given))
        elif not (failed or faults or traced.data_dependent):
            faults += _other_sizes(trace, traced, stays)
    if failed and not faults:  # else that is why it failed
        faults.append(_failure_at(trace, traced, failed))
    return Failure(tuple(faults)) if faults else None


def _kind(problem: str | None) -> str | None:
    """Return the type of an error; its message may contain sizes."""
    return None if problem is None else problem.partition(":")[0]


def _atoms(traced: TracedModel, all_ids: Sequence[Ints]) -> frozenset[int]:
    return frozenset(atom for ids in all_ids for atom in traced.atoms.atom_of[ids[ids != FIXED]].tolist())


def _failure_at(trace: Tracer, traced: TracedModel, reason: str) -> Fault:
    """Return where the model failed: at the activations of the operation that ran last."""
    all_ids = [
        d for state in trace.at if state.is_activation for d in state.dims if isinstance(d, np.ndarray)
    ]
    return Fault(reason, _atoms(traced, all_ids), sum(bool(step.reads) for step in trace.steps))


def _apart(trace: Tracer, traced: TracedModel) -> Iterator[Fault]:
    """Yield different atoms that unite in the slice, unless neither may be removed."""
    atom_of, free = np.append(traced.atoms.atom_of, fixed(1)), _may_leave(traced)
    edges = [edge for step in trace.steps for edge in step.edges]
    x, y = (
        atom_of[np.concatenate([fixed(0), *sides])]
        for sides in (zip(*edges, strict=True) if edges else ((), ()))
    )
    if not ((x != y) & (x != FIXED) & (y != FIXED) & (free[x] | free[y])).any():
        return
    for step in trace.steps:
        for a, b in step.edges:
            real = (a != FIXED) & (b != FIXED)
            x, y = atom_of[a[real]], atom_of[b[real]]
            apart = (x != y) & (free[x] | free[y])
            if apart.any():
                atoms = frozenset([*x[apart].tolist(), *y[apart].tolist()])
                yield Fault(f"different channels meet in {step.operation} once some are removed", atoms)


def _new_pins(trace: Tracer, traced: TracedModel) -> Iterator[Fault]:
    pins = trace.known.constraints.pins
    there = np.append(traced.atoms.atom_of, fixed(1))[np.concatenate([fixed(0), *(ids for ids, _ in pins)])]
    if not _may_leave(traced)[there].any():
        return
    for ids, why in pins:
        atoms = _atoms(traced, [ids]) - traced.atoms.pinned.keys()
        if atoms:
            yield Fault(why, atoms)


def _may_leave(traced: TracedModel) -> AtomMask:
    """Return which atoms are not pinned, [atoms + 1]; the last entry is for :data:`FIXED` positions."""
    free = np.ones(traced.atoms.count + 1, dtype=bool)
    free[list(traced.atoms.pinned)] = False
    free[FIXED] = False
    return free


def _partings(trace: Tracer, traced: TracedModel, stays: AtomMask | None, complete: bool) -> Iterator[Fault]:
    """Yield where the run of the slice differs.

    It does not suffice that each edge joins an atom to itself: a roll by half of the channels exchanges two
    members of an atom, and in a slice it may exchange none. So the edges must be those of the full model
    without the removed positions.
    """

    def shown(steps: list[Step], there: AtomMask | None) -> Iterator[Step]:
        """Yield the steps that both runs must have, with the labels in `there` [labels] left in them."""
        for step in steps:
            if counterparts.of_step(step):
                edges = [] if stays is None else [left(edge, there) for edge in step.edges]
                edges = [edge for edge in edges if counterparts.of_edge(edge)]
                yield Step(step.operation, step.what, step.reads, step.touched, step.flowing, edges)

    def left(edge: Edge, there: AtomMask | None) -> Edge:
        """Return `edge` without what is not `there`; the same few arrays are in many edges."""
        if there is None:
            return edge
        for ids in edge:
            if id(ids) not in remain:
                remain[id(ids)] = ids[(ids == FIXED) | there[ids]]
        return remain[id(edge[0])], remain[id(edge[1])]

    if not traced.data_dependent and _same_steps(traced.steps, trace.steps, stays):
        return
    remain: dict[int, Ints] = {}
    counterparts = _Counterparts(traced)
    before, after = list(shown(traced.steps, stays)), list(shown(trace.steps, None))
    for parting in partings(before, after, complete):
        yield Fault(parting.reason, _atoms(traced, parting.labels), parting.stretch)


def _same_steps(before: Sequence[Step], after: Sequence[Step], stays: AtomMask | None) -> bool:
    """Return whether the run of the slice has the steps of the model's, with the edges that `stays` leaves.

    That is the rule, and this is quick: the edges of all steps are compared at once.
    """
    if [(step.what, step.reads, len(step.edges)) for step in before] != [
        (step.what, step.reads, len(step.edges)) for step in after
    ]:
        return False
    return stays is None or is_left(_sides(before), _sides(after), stays)


def _sides(steps: Sequence[Step]) -> list[Ints]:
    return [ids for step in steps for edge in step.edges for ids in edge]


def _other_values(trace: Tracer, traced: TracedModel, values: Values) -> Iterator[Fault]:
    """Yield where a call gives other values in the slice; both runs have the same calls."""
    for mine, other in _pairs(trace, traced, _Counterparts(traced).of_step):
        if mine.computed and other.computed and values.differ(mine.computed, other.computed):
            yield Fault(
                f"what stays comes out of {mine.operation} otherwise in the slice (the certificate)",
                _atoms(traced, mine.touched),
            )


def _other_sizes(trace: Tracer, traced: TracedModel, stays: AtomMask) -> Iterator[Fault]:
    """Yield where a tensor of a slice without labels has other sizes than its labels in the model say.

    A view by a number that stayed the same gives one head of four numbers as two of two: all calls can run.
    """
    there, sizes = np.append(stays, True), {}

    def expected(given: Given) -> Iterator[int | None]:
        """Yield the sizes that are left; None for any."""
        for size, dim in zip(given.shape, given.state.dims, strict=True):
            if isinstance(dim, np.ndarray) and id(dim) not in sizes:
                sizes[id(dim)] = int(np.count_nonzero(there[dim]))
            yield sizes[id(dim)] if isinstance(dim, np.ndarray) else None if dim is FREE else size

    def differ(full: Given, small: Given) -> bool:
        return len(full.shape) != len(small.shape) or any(
            size is not None and size != now for size, now in zip(expected(full), small.shape, strict=True)
        )

    for mine, other in _pairs(trace, traced, lambda step: True):
        if mine.computed and other.computed:
            pairs = zip(mine.computed.tensors, other.computed.tensors, strict=False)
            if any(differ(full, small) for full, small in pairs):
                yield _hard_coded(traced, mine)
    for old, new in zip(stretches(traced.steps), stretches(trace.steps), strict=False):
        yield from _other_views(traced, old, new, differ)


def _other_views(
    traced: TracedModel, before: list[Step], after: list[Step], differ: Callable[[Given, Given], bool]
) -> Iterator[Fault]:
    """Yield the first difference if it is the size of a view.

    A product may run as other operations where there is one of something, so that nothing behind can be
    compared.
    """
    moved = ([step for step in steps if step.moved] for steps in (before, after))
    for mine, other in zip(*moved, strict=False):
        alike = _kind_of_move(mine) == _kind_of_move(other)
        assert mine.moved is not None
        assert other.moved is not None
        if not alike or differ(mine.moved, other.moved):
            if alike and mine.operation in _RESHAPES:  # with what came before of the same sizes
                yield _hard_coded(traced, mine)
            return


_RESHAPES = frozenset(("aten.view.default", "aten._unsafe_view.default", "aten._reshape_alias.default"))


def _kind_of_move(step: Step) -> str:
    """Return the operation; by which of several a tensor is reshaped depends on its strides."""
    return "reshape" if step.operation in _RESHAPES else step.operation


def _hard_coded(traced: TracedModel, step: Step) -> Fault:
    reason = f"the model hard-codes channel indices or counts at {step.operation} (the certificate)"
    return Fault(reason, _atoms(traced, step.touched))


def _pairs(trace: Tracer, traced: TracedModel, shown: Callable[[Step], bool]) -> Iterator[tuple[Step, Step]]:
    """Yield the steps of the model and of its slice that are `shown` and do not only move values."""
    before, after = (
        [step for step in steps if step.what is not None and shown(step)]
        for steps in (traced.steps, trace.steps)
    )
    yield from zip(before, after, strict=True)


class _Counterparts:
    """What must have a counterpart in the other run.

    That is everything, or, where the data decide how much runs (such as the number of boxes), only
    what touches channels that may be removed.
    """

    def __init__(self, traced: TracedModel) -> None:
        self._all = not traced.data_dependent
        self._free, self._atom_of = _may_leave(traced), np.append(traced.atoms.atom_of, fixed(1))
        self._known: dict[int, bool] = {}

    def of_edge(self, edge: Edge) -> bool:
        return self._all or any(self._is_free(ids) for ids in edge)

    def of_step(self, step: Step) -> bool:
        if self._all:
            return True
        for ids in step.touched:  # the same few lines in many steps
            if id(ids) not in self._known:
                self._known[id(ids)] = self._is_free(ids)
        return any(self._known[id(ids)] for ids in step.touched)

    def _is_free(self, ids: Ints) -> bool:
        return bool(self._free[self._atom_of[ids]].any())
