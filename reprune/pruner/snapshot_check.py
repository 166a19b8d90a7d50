"""Check that a pruner's saved state is complete and matches, before anything is changed."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import shown
from ..strict_json import is_int
from .history import History
from .live import Live

FORMAT = 1
"""Version of the state's format."""
KEYS = ("model", "mode", "settings", "copies", "epoch", "finished", "alive", "coverage", "history", "store")


def check(live: Live, saved: Any, fingerprint: str) -> None:
    """Raise `ValueError` unless `saved` is a whole state of a pruner with the settings of `live`."""
    if not isinstance(saved, Mapping):
        raise TypeError(f"state: expected what state_dict returned; got {shown(saved)}")
    if saved.get("format") != FORMAT:
        raise ValueError(
            f"state: this version of reprune reads states of format {FORMAT}; got {saved.get('format')!r}"
        )
    missing = [key for key in KEYS if key not in saved]
    if missing or not isinstance(saved["settings"], Mapping):
        raise _damaged(f"it lacks {missing[0] if missing else 'settings'}")
    if not _equal(saved["model"], fingerprint):
        raise ValueError(
            "state: it is of another model, whose tensors or connections differ; nothing was loaded"
        )
    mine = {"mode": live.asked, "copies": len(live.tracked.copies), **live.record()}
    theirs = {"mode": saved["mode"], "copies": saved["copies"], **saved["settings"]}
    for name in sorted(mine.keys() | theirs.keys()):
        if not _equal(mine.get(name), theirs.get(name)):
            raise ValueError(
                f"state: it is of a pruner with {name}={theirs.get(name)!r}, this one has "
                f"{mine.get(name)!r}; nothing was loaded"
            )
    if type(saved["finished"]) is not bool or not is_int(saved["epoch"]):
        raise _damaged("its epoch is no number, or finished neither true nor false")
    if live.finished and not saved["finished"]:
        raise ValueError(
            "state: this pruner is finished and the state is not; build model, optimizer and pruner anew"
        )
    _check_alive(live, saved["alive"])
    _check_coverage(live, saved["coverage"])
    try:
        history = History.from_list(saved["history"])
    except (TypeError, ValueError) as error:
        raise _damaged(f"its history: {error}") from None
    _check_store(live, saved["store"], bool(saved["alive"].all()) or saved["finished"] or not len(history))


def _equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except (RuntimeError, ValueError, TypeError):  # tensors and arrays, in a damaged state
        return False


def _damaged(reason: str) -> ValueError:
    return ValueError(f"state: expected what state_dict returned; got one that is damaged ({reason})")


def _check_alive(live: Live, alive: Any) -> None:
    graph = live.graph
    if not isinstance(alive, Tensor) or alive.dtype != torch.bool or alive.shape != live.alive.shape:
        raise _damaged(f"alive should be {live.alive.size} booleans")
    there = alive.cpu().numpy()
    movable = np.zeros_like(there)
    for group in graph.groups:
        movable[group.atoms] = True
    if not there[~movable].all() or not np.array_equal(graph.traced.filled(there), there):
        raise _damaged("alive lacks channels that cannot leave")


def _check_coverage(live: Live, coverage: Any) -> None:
    names = {group.name for group in live.graph.groups}
    if not isinstance(coverage, Mapping) or coverage.keys() != names:
        raise _damaged("coverage is not that of its layers")
    if not all(isinstance(share, Real) and 0 <= float(share) <= 1 for share in coverage.values()):
        raise _damaged("coverage should be 0 to 1")


def _check_store(live: Live, store: Any, may_lack: bool) -> None:
    """Check the full-size values: all of the model and its copies, some of the optimizer."""
    names, pieces = live.layout(), live.tracked.pieces
    sizes = {f"{prefix}/{name}": pieces[name].size() for prefix, _ in live.tracked.models() for name in names}
    if not isinstance(store, Mapping) or not (may_lack or sizes.keys() <= store.keys()):
        raise _damaged("the values of dropped channels are missing")
    for key, value in store.items():
        kind, _, rest = key.partition("/") if isinstance(key, str) else ("", "", "")
        size = sizes.get(key)
        if kind == "state":
            piece = pieces.get(rest.partition("/")[2])
            size = None if piece is None else piece.size()
        if size is None or not isinstance(value, Tensor) or tuple(value.shape) != size:
            raise _damaged(f"the values of dropped channels {key!r} are not of this model")
