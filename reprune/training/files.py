"""One file with everything that a training needs to go on, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .. import tensor_file
from ..pruner import Pruner
from ..wrappers import load_plain_state, plain_state
from . import rng
from .codec import decode, encode

KEY = "reprune_training"
"""Where the head stands in the metadata."""
FORMAT = 1
"""Version of the file's form."""


def save_training(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    pruner: Pruner,
    others: Mapping[str, Any] | None = None,
) -> None:
    """Write a safetensors file from which :func:`load_training` goes on, to the bit on the CPU.

    In it are the states of model, optimizer and pruner (with the values of dropped channels), of all
    `others` by name (learning-rate schedulers, a GradScaler, an AveragedModel: whatever has
    ``state_dict()``; a ``torch.Generator``), and the global random number generators of PyTorch, Python and
    numpy.

    The file is complete or not there: it is written beside `path` and moved into place, so the one before
    stays until then.  With several processes only one may write.  Raises ``ValueError`` for a state that is
    not made of dictionaries, lists, plain values and tensors.
    """
    given = dict(others or {})
    content = {
        "model": plain_state(model),
        "optimizer": optimizer.state_dict(),
        "pruner": pruner.state_dict(),
        "others": {name: _state_of(other, name) for name, other in given.items()},
        "random": rng.generators(),
    }
    tensors: list[torch.Tensor] = []
    head = {"format": FORMAT, "content": encode(content, tensors, "state")}
    tensor_file.write(path, KEY, head, {str(k): tensor for k, tensor in enumerate(tensors)})


def load_training(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    pruner: Pruner,
    others: Mapping[str, Any] | None = None,
) -> None:
    """Go on from a file that :func:`save_training` wrote; ``pruner.epoch`` epochs are done then.

    Build `model`, `optimizer`, `pruner` and `others` as at the start of the training, with the model at full
    size::

        if os.path.exists(path):
            reprune.load_training(path, model, optimizer, pruner, {"scheduler": scheduler})
        for epoch in range(pruner.epoch, epochs):
            train_one_epoch(model, optimizer)
            scheduler.step()
            pruner.step()
            reprune.save_training(path, model, optimizer, pruner, {"scheduler": scheduler})

    Raises ``FileNotFoundError``; ``ValueError`` for a file that is damaged, from a newer version, not such a
    file or of another training.  Then nothing was changed.
    """
    content = _read(path)
    given = dict(others or {})
    if content["others"].keys() != given.keys():
        raise ValueError(
            f"others: {path} has {_listed(content['others'])}, given are {_listed(given)}; give the same"
        )
    theirs = [len(group["params"]) for group in content["optimizer"]["param_groups"]]
    mine = [len(group["params"]) for group in optimizer.param_groups]
    if theirs != mine:
        raise ValueError(
            f"optimizer: {path} has groups of {theirs} parameters, this one has {mine}; build it as it was "
            f"built then"
        )
    pruner.load_state_dict(content["pruner"])
    load_plain_state(model, content["model"])
    optimizer.load_state_dict(content["optimizer"])
    for name, other in given.items():
        if isinstance(other, torch.Generator):
            other.set_state(content["others"][name])
        else:
            other.load_state_dict(content["others"][name])
    rng.restore(content["random"])


def _state_of(other: Any, name: str) -> Any:
    if isinstance(other, torch.Generator):
        return other.get_state()
    if not hasattr(other, "state_dict"):
        raise TypeError(
            f"others[{name!r}]: expected something with state_dict() or a torch.Generator, got "
            f"{type(other).__name__}"
        )
    return other.state_dict()


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    with tensor_file.opened(path, KEY, "reprune.save_training") as file:
        try:
            version, content = file.head["format"], file.head.get("content")
        except (LookupError, TypeError, AttributeError):
            raise ValueError(f"{path}: the header is damaged") from None
        if version != FORMAT:
            raise ValueError(
                f"{path}: this version of reprune reads trainings of format {FORMAT}, got format {version!r}"
            )
        tensors = file.tensors()
    try:
        found = decode(content, [tensors[str(k)] for k in range(len(tensors))])
    except (LookupError, TypeError) as error:
        raise ValueError(f"{path}: the header is damaged ({error!r})") from None
    assert isinstance(found, dict)
    return found
