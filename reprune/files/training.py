"""Save everything that a training needs for a bit-exact resume in one file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from ..modules import rng
from ..modules.sharded import refuse_sharded
from ..modules.wrappers import plain_state
from ..pruner import Pruner
from ..pruner import snapshot as state
from . import tensor_file
from .built import built_of, check_alike, check_belong, check_states, check_tensors
from .codec import decode, encode
from .stored import Stored
from .tensor_file import TensorFile
from .undo import all_or_nothing

KEY = "reprune_training"
"""Key of the head in the metadata."""
FORMAT = 1
"""Version of the file format."""
SHARDED = (
    "each process keeps its own pruner.state_dict(), beside a checkpoint of torch.distributed.checkpoint for "
    "model and optimizer"
)
"""What to do instead."""


def save_training(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    pruner: Pruner,
    others: Mapping[str, Any] | None = None,
) -> None:
    """Write a file from which :func:`load_training` resumes, bit-exact on the CPU.

    It holds the states of model, optimizer and pruner (with the values of dropped channels), of all `others`,
    and the global random number generators of PyTorch, Python and numpy. The file is complete or not there:
    it is written beside `path` and moved into place, so the one before stays until then. Of several
    processes only one may write.

    Args:
        path: Name of the file, in the safetensors format.
        model: The model that is trained.
        optimizer: Its optimizer.
        pruner: Its pruner.
        others: By name, what else has a state: learning-rate schedulers, a GradScaler, an AveragedModel,
            whatever has `state_dict()`, or a `torch.Generator`.

    Raises:
        ValueError: A state is not made of dictionaries, lists, plain values and tensors; or the model is
            sharded.
        TypeError: One of `others` has no state.
        OSError: The file cannot be written.

    Examples:
        :func:`load_training` has the loop.
    """
    given = _checked(others)
    check_belong(model, optimizer, pruner)
    refuse_sharded(model, SHARDED)
    content = {
        "built": built_of(model, optimizer, given),
        "model": plain_state(model),
        "optimizer": optimizer.state_dict(),
        "pruner": pruner.state_dict(),
        "others": {
            name: other.get_state() if isinstance(other, torch.Generator) else other.state_dict()
            for name, other in given.items()
        },
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
    """Resume the training in a file that :func:`save_training` wrote, after `pruner.epoch` epochs.

    Build `model`, `optimizer`, `pruner` and `others` as at the start of the training, with the model at full
    size.

    Args:
        path: Name of the file.
        model: The model that is trained.
        optimizer: Its optimizer.
        pruner: Its pruner.
        others: By the same names, what else had a state.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, from a newer version, not such a file or of another training:
            another model, other settings of the pruner, another class of optimizer or order of its
            parameters, `others` of other names or classes. All of that is looked at before anything is
            changed. If a `load_state_dict()` fails all the same, model, optimizer, pruner, its copies and
            the random number generators are restored bit-exactly, and each of `others` is given the state
            that its `state_dict()` told before.

    Examples:
        A loop that may be interrupted at any moment and started again::

            if os.path.exists(path):
                reprune.load_training(path, model, optimizer, pruner, {"scheduler": scheduler})
            for epoch in range(pruner.epoch, epochs):
                train_one_epoch(model, optimizer)
                scheduler.step()
                pruner.step()
                reprune.save_training(path, model, optimizer, pruner, {"scheduler": scheduler})
            pruner.finalize()
    """
    with tensor_file.opened(path, KEY, "reprune.save_training") as file:
        content, stored = _read(path, file)
        given = _checked(others)
        check_belong(model, optimizer, pruner)
        refuse_sharded(model, SHARDED)
        with _as_value_error(path, "it does not fit what is given"):
            check_alike(content, model, optimizer, given)
            saved = content["pruner"]
            content["pruner"] = {k: v if k == "store" else stored.new(v) for k, v in saved.items()}
            state.check_saved(pruner.live, content["pruner"])
            shapes, cut = state.shapes(pruner.live, content["pruner"])
            check_tensors(content, model, shapes)
            check_states(content, model, optimizer, cut)
            content["random"] = stored.new(content["random"])
            rng.check(content["random"])
        with (
            _as_value_error(path, "it could not be loaded"),
            all_or_nothing(pruner, optimizer, given) as keep,
        ):
            _load(stored, content, model, optimizer, pruner, given, keep)


@torch.inference_mode(False)
def _load(
    stored: Stored,
    content: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    pruner: Pruner,
    given: Mapping[str, Any],
    keep: Callable[[], None],
) -> None:
    """Load everything after it was checked; `keep` is called before values are overwritten."""
    saved = content["pruner"]
    saved["store"] = stored.like(saved["store"], state.live_tensors(pruner.live))
    if not pruner.live.mode.small:
        keep()
    state.load(pruner.live, saved, own=True)
    keep()
    stored.load_model(model, content["model"])
    optimizer.load_state_dict(stored.new(content["optimizer"]))
    _lay_out_alike(optimizer)
    for name, other in given.items():
        if isinstance(other, nn.Module):
            stored.load_module(other, content["others"][name])
            continue
        (other.set_state if isinstance(other, torch.Generator) else other.load_state_dict)(
            stored.new(content["others"][name])
        )
    rng.restore(content["random"])


@torch.no_grad()
def _lay_out_alike(optimizer: torch.optim.Optimizer) -> None:
    """Give the state of each parameter its order in memory, which files do not hold.

    A fused optimizer takes the numbers of both in the order in which they lie in memory.
    """
    for parameter, held in optimizer.state.items():
        for key, value in held.items():
            if not isinstance(value, torch.Tensor) or value.shape != parameter.shape:
                continue
            if value.stride() != parameter.stride():
                held[key] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)


@contextlib.contextmanager
def _as_value_error(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turn errors inside the block into a `ValueError` that names the file."""
    try:
        yield
    except MemoryError:
        raise
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)!s}: {error}") from error
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ValueError(f"{os.fspath(path)!s}: {what} ({type(error).__name__}: {reason})") from error


def _checked(others: Any) -> dict[str, Any]:
    """Return a copy of `others`; raise `TypeError` if something in it has no state."""
    if others is not None and not isinstance(others, Mapping):
        raise TypeError(f"others: expected a dictionary; got a {type(others).__name__}")
    for name, other in (others or {}).items():
        able = hasattr(other, "state_dict") and hasattr(other, "load_state_dict")
        if not able and not isinstance(other, torch.Generator):
            raise TypeError(
                f"others[{name!r}]: expected something with state_dict() and load_state_dict(), or a "
                f"torch.Generator; got {type(other).__name__}"
            )
    return dict(others or {})


def _read(path: str | os.PathLike[str], file: TensorFile) -> tuple[dict[str, Any], Stored]:
    """Return the checked content of the file, with stand-ins for tensors."""
    head = file.head
    if not isinstance(head, dict) or "format" not in head:
        raise ValueError(f"{path}: the header is damaged")
    if head["format"] != FORMAT:
        raise ValueError(
            f"{path}: this version of reprune reads trainings of format {FORMAT}; got format "
            f"{head['format']!r}"
        )
    file.check()
    try:
        stored = Stored(file)
        content = decode(head.get("content"), stored.tensors)
        _check_form(content)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: the header is damaged ({error})") from None
    assert isinstance(content, dict)
    return content, stored


def _check_form(content: Any) -> None:
    """Raise an error of some kind unless `content` has the form that :func:`load_training` needs."""
    for key in ("model", "optimizer", "pruner", "others", "random"):
        if not isinstance(content[key], dict):
            raise ValueError(f"{key!r} is a {type(content[key]).__name__}")
    sizes = [len(group["params"]) for group in content["optimizer"]["param_groups"]]
    built = content.get("built")
    if built is None:  # a file of an earlier version
        return
    fits = [len(group) for group in built["parameters"]] == sizes
    if not fits or built["others"].keys() != content["others"].keys():
        raise ValueError("'built' does not fit the rest")
