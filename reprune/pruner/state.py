"""The pruner's state as plain values and tensors, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..arrays import shown
from ..wrappers import named_parameters
from .history import History

if TYPE_CHECKING:
    from .pruner import Pruner

FORMAT = 1
"""Version of the state's form."""


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
    _check(pruner, saved)
    pruner._check()
    alive = saved["alive"].numpy().astype(bool)
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


def _check(pruner: Pruner, saved: Mapping[str, Any]) -> None:
    if not isinstance(saved, Mapping):
        raise TypeError(f"state: expected what state_dict returned, got {shown(saved)}")
    if saved.get("format") != FORMAT:
        raise ValueError(
            f"state: this version of reprune reads states of format {FORMAT}, got {saved.get('format')!r}"
        )
    if saved["model"] != fingerprint(pruner):
        raise ValueError(
            "state: it is of another model, whose tensors or connections differ; nothing was loaded"
        )
    mine = {"mode": pruner.mode, "copies": len(pruner._members.copies), **pruner._settings}
    theirs = {"mode": saved["mode"], "copies": saved["copies"], **saved["settings"]}
    for name in sorted(mine.keys() | theirs.keys()):
        if mine.get(name) != theirs.get(name):
            raise ValueError(
                f"state: it is of a pruner with {name}={theirs.get(name)!r}, this one has "
                f"{mine.get(name)!r}; nothing "
                "was loaded"
            )
    if pruner.finished and not saved["finished"]:
        raise ValueError(
            "state: this pruner is finished and the state is not; build model, optimizer and pruner anew"
        )


def widen(pruner: Pruner, model_state: dict[str, Any], optimizer_state: dict[str, Any]) -> None:
    """Replace what is cut in two ``state_dict()`` by its full-size twin; nothing else is changed.

    A full-size model and optimizer that are given these go on with ``pruner.load_state_dict``.
    """
    pruner._absorb(pruner._enforcement.every)
    full = pruner._store.full
    for name in model_state:
        if f"model/{name}" in full:
            model_state[name] = full[f"model/{name}"].clone()
    names = {id(parameter): name for name, parameter in named_parameters(pruner.model).items()}
    held = [names.get(id(p), "") for group in pruner.optimizer.param_groups for p in group["params"]]
    states = optimizer_state["state"]
    optimizer_state["state"] = {
        number: {
            kind: full[key].clone() if (key := f"state/{kind}/{held[number]}") in full else value
            for kind, value in state.items()
        }
        for number, state in states.items()
    }
