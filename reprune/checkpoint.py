"""Files: a pruned model's tensors and the plan that makes the full model fit them.  No pickle."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from .graph import cut_all, named_tensors, put
from .plan import PruningPlan, plan_of, remember_plan

FORMAT = 1
"""Version of the file's form."""


def save(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write `model` and the plan that pruned it (none if it is whole) to a safetensors file.

    The file is complete or not there: it is written beside `path` and moved into place.  The same model gives
    the same bytes.
    Raises ``ValueError`` if the model has state that is not tensors.
    """
    plan = plan_of(model)
    head = {"format": FORMAT, "plan": None if plan is None else json.loads(plan.to_json())}
    tensors = {name: t.detach().contiguous() for name, t in _stored(model).items()}
    with in_place_of(Path(path)) as temporary:
        save_file(
            tensors, temporary, metadata={"reprune": json.dumps(head)}
        )  # one key: two come in any order


def load(path: str | os.PathLike[str], model: nn.Module) -> nn.Module:
    """Make `model`, freshly built at full size, the network in the file at `path`, in place; returns it.

    Raises ``FileNotFoundError``; ``ValueError`` for a file that is damaged, from a newer version, not
    reprune's or of another model.  After an error the model is as it was.
    """
    plan, stored = _read(path)
    tensors = named_tensors(model)
    if plan is not None:
        plan.check(tensors)
    own = _stored(model)
    _same_names(own, stored, path)
    sliced = {} if plan is None else cut_all(model, plan.slices)
    new: dict[Tensor, Tensor] = dict(sliced)
    for name, old in own.items():
        value, size = stored[name], tuple(sliced.get(old, old).shape)
        if tuple(value.shape) != size:
            raise ValueError(f"{path}: {name} has shape {tuple(value.shape)}, this model needs {size}")
        value = value.to(old.device, copy=True)  # own, aligned memory: the same arithmetic as before saving
        new[old] = (
            nn.Parameter(value, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else value
        )
    put(model, new)
    if plan is not None:
        remember_plan(model, plan)
    return model


def read_plan(path: str | os.PathLike[str]) -> PruningPlan:
    """The plan in a file that :func:`save` wrote.  Errors as :func:`load`; ``ValueError`` if the model was
    whole."""
    with _opened(path) as file:
        plan = _plan_in(file, path)
    if plan is None:
        raise ValueError(f"{path}: the model in it was not pruned, so there is no plan")
    return plan


def _stored(model: nn.Module) -> dict[str, Tensor]:
    """What a file holds: the model's state, tied tensors once."""
    unique: dict[int, str] = {}
    stored: dict[str, Tensor] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"model: its state {name!r} is a {type(value).__name__}; only tensors can be saved"
            )
        if unique.setdefault(id(value), name) == name:
            stored[name] = value
    return stored


def _read(path: str | os.PathLike[str]) -> tuple[PruningPlan | None, dict[str, Tensor]]:
    with _opened(path) as file:
        plan = _plan_in(file, path)
        return plan, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a file that reprune.save wrote, got one that is damaged or no safetensors "
            f"file ({error})"
        ) from None


def _plan_in(file: Any, path: str | os.PathLike[str]) -> PruningPlan | None:
    head = (file.metadata() or {}).get("reprune")
    if head is None:
        raise ValueError(
            f"{path}: expected a file that reprune.save wrote, got a safetensors file of another program"
        )
    try:
        content = json.loads(head)
        version, plan = content["format"], content["plan"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: the header is damaged") from None
    if version != FORMAT:
        raise ValueError(
            f"{path}: this version of reprune reads files of format {FORMAT}, got format {version!r}; "
            "use the version that wrote it, or a newer one"
        )
    return None if plan is None else PruningPlan.from_json(json.dumps(plan))


def _same_names(
    own: Mapping[str, Tensor], stored: Mapping[str, Tensor], path: str | os.PathLike[str]
) -> None:
    missing, surplus = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
    if missing or surplus:
        parts = [
            f"{what} {', '.join(names[:3])}"
            for what, names in (("lacks", missing), ("has", surplus))
            if names
        ]
        raise ValueError(f"{path}: not a file of this model: it {' and '.join(parts)}")


@contextlib.contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """A file in a folder beside `path`; it takes the place of `path` once it is whole.

    What writers of `path` that were killed have left beside it is removed.
    """
    for leftover in path.parent.glob(f"{glob.escape(path.name)}????????.tmp"):
        with _lock(leftover) as free:
            if free:
                shutil.rmtree(leftover, ignore_errors=True)
    with (
        tempfile.TemporaryDirectory(dir=path.parent, prefix=path.name, suffix=".tmp") as folder,
        _lock(folder),
    ):
        temporary = Path(folder) / path.name
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # safetensors makes files for their owner alone
        os.replace(temporary, path)


@contextlib.contextmanager
def _lock(folder: str | os.PathLike[str]) -> Iterator[bool]:
    """Hold the lock of a folder.  A writer does so while it lives: where this can, there is none.

    False if another has it, or where folders have no locks.
    """
    if fcntl is None or not os.path.isdir(folder):
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError:
        free = False
    try:
        yield free
    finally:
        os.close(handle)
