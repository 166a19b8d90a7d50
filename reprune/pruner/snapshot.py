"""Save the pruner's state as plain values and tensors, and load it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..distributed import together
from ..modules.sharded import is_sharded
from ..modules.slicing import named_tensors, sliced_shape
from .history import History
from .live import Live
from .rejoin import places_of, rejoined
from .snapshot_check import FORMAT, check


def fingerprint(live: Live) -> str:
    """Return a digest of the full model's tensors and of how they are coupled."""
    digest = hashlib.sha256(repr(sorted(live.tracked.sizes.items())).encode())
    digest.update(live.graph.traced.atoms.atom_of.astype(np.int64).tobytes())
    for group in live.graph.groups:
        digest.update(group.name.encode() + group.atoms.astype(np.int64).tobytes())
    return digest.hexdigest()


def save(live: Live) -> dict[str, Any]:
    """Return the state of `live`; tensors are copies."""
    store = live.store.full
    return {
        "format": FORMAT,
        "model": fingerprint(live),
        "mode": live.asked,
        "settings": live.record(),
        "copies": len(live.tracked.copies),
        "epoch": live.epoch,
        "finished": live.finished,
        "alive": torch.from_numpy(live.alive.copy()),
        "coverage": dict(live.coverage),
        "history": live.history.to_list(),
        "store": {key: tensor.clone() for key, tensor in store.items()},
        "places": places_of(list(store), live.tracked.pieces),
    }


def load(live: Live, saved: Mapping[str, Any] | Sequence[Mapping[str, Any]], own: bool = False) -> None:
    """Restore `live`, its model and optimizer to the structure of `saved`, which may be :func:`rejoined`.

    `own` says that the tensors of `saved` are not used elsewhere and that all values of model, copies and
    optimizer are loaded after this. Until then they share the tensors of `saved`, so that little is copied.

    All processes with parts of a model do this together: if one fails, all raise, and model and optimizer
    are as they were.
    """
    with together("load_state_dict") if is_sharded(live.model) else nullcontext():
        _load(live, rejoined(saved, live.tracked.pieces), own)


def _load(live: Live, saved: Mapping[str, Any], own: bool) -> None:
    check_saved(live, saved)
    alive = saved["alive"].cpu().numpy().copy()
    known = saved["store"].keys() if own else ()
    if own:
        live.store.full |= saved["store"]
    if saved["finished"] and not live.mode.small:
        live.shrink_for_good(alive, known)
    elif not np.array_equal(alive, live.alive):
        live.absorb(known=known)
        live.moving(alive)()
    if own:
        live.store.drop(lambda key: key not in known)
    else:
        live.store.restore(saved["store"])
    live.coverage = dict(saved["coverage"])
    live.history = History.from_list(saved["history"])
    live.epoch = int(saved["epoch"])
    live.finished = bool(saved["finished"])
    if live.finished:
        live.unhook()
    if len(live.history):
        live.record_plan()


def check_saved(live: Live, saved: Mapping[str, Any]) -> None:
    """Raise `ValueError` if :func:`load` could not."""
    check(live, saved, fingerprint(live))
    live.check()


def shapes(
    live: Live, saved: Mapping[str, Any]
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return the shapes of all tensors with `saved`, and those of the sliced tensors."""
    sizes = live.tracked.sizes
    if not live.mode.small and not saved["finished"]:
        return sizes, {}
    layout = live.layout(saved["alive"].cpu().numpy())
    cut = {name: sliced_shape(sizes[name], where) for name, where in layout.items()}
    return sizes | cut, cut


def live_tensors(live: Live) -> dict[str, Tensor]:
    """Return the tensors of the model and its copies, by the keys of the store."""
    models = live.tracked.models()
    return {f"{prefix}/{name}": t for prefix, model in models for name, t in named_tensors(model).items()}
