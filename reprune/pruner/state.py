"""The pruner's state as plain values and tensors, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..modules.slicing import sliced_shape
from .history import History
from .state_check import FORMAT, check

if TYPE_CHECKING:
    from .pruner import Pruner


def fingerprint(pruner: Pruner) -> str:
    """A digest of the full model's tensors and of how they hang together."""
    digest = hashlib.sha256(repr(sorted(pruner._members.sizes.items())).encode())
    digest.update(pruner._graph.traced.atoms.of.astype(np.int64).tobytes())
    for group in pruner._graph.groups:
        digest.update(group.name.encode() + group.atoms.astype(np.int64).tobytes())
    return digest.hexdigest()


def save(pruner: Pruner) -> dict[str, Any]:
    """The state of `pruner`; tensors are copies."""
    return {
        "format": FORMAT,
        "model": fingerprint(pruner),
        "mode": pruner.mode,
        "settings": dict(pruner._settings),
        "copies": len(pruner._members.copies),
        "epoch": pruner.epoch,
        "finished": pruner.finished,
        "alive": torch.from_numpy(pruner._alive.copy()),
        "coverage": dict(pruner._coverage),
        "history": pruner.history.to_list(),
        "store": {key: tensor.clone() for key, tensor in pruner._store.full.items()},
    }


def load(pruner: Pruner, saved: Mapping[str, Any]) -> None:
    """Bring `pruner`, its model and optimizer into the structure of `saved`."""
    check_saved(pruner, saved)
    alive = saved["alive"].cpu().numpy().copy()
    if saved["finished"] and pruner.mode == "mask" and not pruner.finished:
        pruner._leave_mask(alive)
    else:
        pruner._absorb(pruner._enforcement.every)
        pruner._move(alive)
    pruner._store.restore(saved["store"])
    pruner._coverage = dict(saved["coverage"])
    pruner.history = History.from_list(saved["history"])
    pruner.epoch = int(saved["epoch"])
    pruner.finished = bool(saved["finished"])
    if pruner.finished:
        pruner._unhook()
    if len(pruner.history):
        pruner._tell_plan()


def check_saved(pruner: Pruner, saved: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if :func:`load` could not."""
    check(pruner, saved, fingerprint(pruner))
    pruner._check()


def shapes(
    pruner: Pruner, saved: Mapping[str, Any]
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """The shapes that all tensors will have with `saved`, and those of the tensors that are cut."""
    sizes = pruner._members.sizes
    if pruner.mode == "mask" and not saved["finished"]:
        return sizes, {}
    layout = pruner._structure.layout(saved["alive"].cpu().numpy())
    cut = {name: sliced_shape(sizes[name], where) for name, where in layout.items()}
    return sizes | cut, cut


def keep(pruner: Pruner) -> Callable[[], None]:
    """A function that makes `pruner` what it is now again; its model and optimizer are not looked at."""
    before, full = dict(vars(pruner)), dict(pruner._store.full)

    def put_back() -> None:
        vars(pruner).clear()
        vars(pruner).update(before)
        pruner._store.full = full

    return put_back
