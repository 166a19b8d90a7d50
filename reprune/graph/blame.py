"""Find which groups make a certificate fail: only those are skipped."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .certificate import FAILS, AtomMask, Failure, Fault
from .groups import ChannelGroup
from .steps import CALLS

Certify = Callable[[AtomMask], Failure | None]


class NotRepeatableError(Exception):
    """Raised when a model does not run alike twice with all its channels."""

    def __str__(self) -> str:
        return f"the model does not run alike twice on the example inputs, with all channels: {self.args[0]}"


def find_guilty(
    groups: Sequence[ChannelGroup],
    kept: AtomMask,
    certify: Certify,
    kin: Callable[[ChannelGroup], Sequence[ChannelGroup]] = lambda group: [group],
) -> dict[str, str]:
    """Return {group: why it cannot be pruned}; without these, the rest of `kept` [atoms] is right.

    A fault shows the channels in use where the run of the slice differs. If these belong to one group, it is
    guilty. If they belong to several, or none of them was sliced (a branch may depend on the width of a
    distant layer), parts of the groups are tried alone. Where the slice fails to run, nothing is known of
    what comes behind, and the guilty group's `kin`, which run by the same code, are taken to fail as it does.

    Raises :class:`NotRepeatableError` if the model fails unsliced, as then no group can be tried. It is run
    so unless all is right without the group that the first slice failed to run with.
    """
    guilty: dict[str, Fault] = {}
    cleared: set[int | None] = {None}
    trial, repeatable = kept, False
    while (failure := certify(trial)) is not None:
        cut = [group for group in groups if not trial[group.atoms].all()]
        plain = trial is kept and _plainly_one(failure, cut)
        if not (plain or repeatable):
            if (unsliced := certify(np.ones_like(kept))) is not None:
                raise NotRepeatableError(unsliced.reason.removeprefix(CALLS))
            repeatable = True
        for fault in failure.faults:
            at_hand = [group for group in cut if not fault.atoms.isdisjoint(group.atoms.tolist())]
            if any(group.name in guilty for group in at_hand):
                continue
            if not (at_hand or fault.place in cleared):  # it fails there without those that were blamed
                cleared.add(fault.place)
                guilty = {name: other for name, other in guilty.items() if other.place != fault.place}
            if len(at_hand) > 1 and certify(_only(kept, at_hand)) is None:
                at_hand = []
            for one in _fewest(at_hand or cut, trial, certify):
                for group in kin(one) if fault.reason.startswith(FAILS) else [one]:
                    guilty.setdefault(group.name, fault)
        trial = _whole(kept, [group for group in groups if group.name in guilty])
    return {name: fault.reason for name, fault in guilty.items()}


def _plainly_one(failure: Failure, groups: Sequence[ChannelGroup]) -> bool:
    """Return whether the slice failed to run, at channels of one of `groups`."""
    if not all(fault.reason.startswith(FAILS) for fault in failure.faults):
        return False
    atoms = frozenset().union(*(fault.atoms for fault in failure.faults))
    return sum(not atoms.isdisjoint(group.atoms.tolist()) for group in groups) == 1


def _fewest(groups: list[ChannelGroup], kept: AtomMask, certify: Certify) -> list[ChannelGroup]:
    """Return the smallest part of `groups` in which `kept` fails by itself, found by bisection."""
    while len(groups) > 1:
        half = len(groups) // 2
        for part in (groups[:half], groups[half:]):
            if certify(_only(kept, part)) is not None:
                groups = part
                break
        else:
            break  # each half is right by itself, only together they are not
    return groups


def _only(kept: AtomMask, groups: Sequence[ChannelGroup]) -> AtomMask:
    """Return `kept` within `groups`, and everything elsewhere."""
    only = np.ones_like(kept)
    for group in groups:
        only[group.atoms] = kept[group.atoms]
    return only


def _whole(kept: AtomMask, groups: Sequence[ChannelGroup]) -> AtomMask:
    """Return `kept`, but with everything in `groups`."""
    whole = np.copy(kept)
    for group in groups:
        whole[group.atoms] = True
    return whole
