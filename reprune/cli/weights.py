"""Read a file of weights into a network, without running code from the file."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

import reprune

from ..modules.slicing import named_tensors, replace_tensors, replacement
from ..strict_json import loads
from .errors import UserError

WRAPPERS = (  # where training scripts put the weights in a checkpoint
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params"),
    *("ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_state"),
)
PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
)  # of DataParallel, torch.compile and Lightning
SHOWN = 3


def load(model: nn.Module, path: Path) -> None:
    """Fill `model` from `path`, a safetensors file or one that `torch.load(weights_only=True)` reads.

    Parameters without values, on the device "meta", become those of the file: of safetensors a part of the
    file that is read where it is needed. Others are copied.

    Everything must fit: raises `UserError` that names what is missing, surplus or of another shape.
    """
    own = model.state_dict(keep_vars=True)
    tensors = _without_prefix(_unwrapped(_read(path), path), own)
    problems = _problems(own, tensors)
    if problems:
        raise UserError(f"the weights in {path} do not fit the network: " + "; ".join(problems))
    empty = {
        name: old for name, old in own.items() if name in tensors and isinstance(old, Tensor) and old.is_meta
    }
    new = {old: replacement(old, tensors[name].to(old.dtype)) for name, old in empty.items()}
    replace_tensors(model, new)
    if len(empty) < len(tensors):
        rest = {name: tensor for name, tensor in tensors.items() if name not in empty}
        model.load_state_dict(rest, strict=False)  # all is there, but the other names of tied tensors
    for name, tensor in named_tensors(model).items():
        if tensor.is_meta:
            raise UserError(f"{name} of the network has no values, and {path} has none for it")


def in_parts(path: Path) -> bool:
    """Return whether the tensors in `path` can be read one by one, as those of safetensors can."""
    return _is_index(path) or _is_safetensors(path)


def files(path: Path) -> list[Path]:
    """Return the files that `path` stands for: itself, and those that an index names."""
    return [path, *sorted({*_shards(path).values()})] if _is_index(path) else [path]


def check(path: Path) -> None:
    """Raise `UserError` unless there is a file that could be one of weights."""
    if path.is_dir():
        raise UserError(f"--weights {path}: expected a file of weights; got a folder")
    if not path.is_file():
        raise UserError(f"--weights: no such file: {path}")
    if not path.stat().st_size:
        raise UserError(f"--weights {path}: expected a file of weights; got an empty file")


def _read(path: Path) -> Any:
    check(path)
    if _is_index(path):
        return _sharded(path)
    if _is_safetensors(path):
        _not_pruned(path)
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"cannot read {path} as a safetensors file: {error}") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is not a file of plain weights: it is damaged, of another kind, or holds Python "
            "objects, which are not loaded because that could run code; save model.state_dict() instead"
        ) from error
    except Exception as error:  # whatever a file of another kind makes of the reader
        first = next(iter(str(error).splitlines()), "it is cut short")
        raise UserError(f"cannot read {path} as a file of weights: {first}") from error


def _is_index(path: Path) -> bool:
    return path.name.endswith(".index.json")


def _sharded(path: Path) -> dict[str, Tensor]:
    """Return the tensors of all safetensors files that the index at `path` names."""
    places = _shards(path)
    found: dict[str, Tensor] = {}
    for file in sorted({*places.values()}):
        if not file.is_file():
            raise UserError(f"{path}: it names the file {file.name}, which is not beside it")
        content = _read(file)
        found |= {name: tensor for name, tensor in content.items() if places.get(name) == file}
    if missing := [name for name in places if name not in found]:
        raise UserError(f"{path}: the files that it names lack {len(missing)} tensors ({_some(missing)})")
    return found


def _shards(path: Path) -> dict[str, Path]:
    """Return {tensor: file} of an index as Hugging Face writes it, `{"weight_map": {tensor: file name}}`."""
    try:
        places = loads(path.read_text())["weight_map"]
        if not all(isinstance(file, str) and Path(file).name == file for file in places.values()):
            raise ValueError("a file has no plain name")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is not an index of safetensors files, {{'weight_map': {{tensor: file}}}} "
            f"({type(error).__name__}: {error})"
        ) from error
    return {name: path.parent / file for name, file in places.items()}


def _not_pruned(path: Path) -> None:
    try:
        reprune.read_plan(path)
    except ValueError:  # the usual case: a file of another program
        return
    raise UserError(f"{path} is a network that reprune has pruned already; reprune.load() reads it")


def _is_safetensors(path: Path) -> bool:
    """Return whether the file begins with the length of a JSON header and the header."""
    with path.open("rb") as file:
        start = file.read(9)
    return path.suffix == ".safetensors" or start[8:] == b"{"


def _unwrapped(content: Any, path: Path) -> Mapping[str, Tensor]:
    if isinstance(content, Mapping):
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return content
        for key in WRAPPERS:
            if isinstance(content.get(key), Mapping):
                return _unwrapped(content[key], path)
    raise UserError(f"{path} holds no state_dict (tensors by name), but a {type(content).__name__}")


def _without_prefix(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors without the wrappers' prefix that all names share, down to names of `own`."""
    names = list(tensors)
    while not own.keys() >= set(names):
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None)
        if prefix is None or any(name.startswith(prefix) for name in own):
            break
        names = [name.removeprefix(prefix) for name in names]
    return dict(zip(names, tensors.values(), strict=True))


def _problems(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Return why `found` does not fit.

    BatchNorm's batch counter may be missing, as torch allows, and of a tied tensor all names but one.
    """
    there = {id(tensor) for name, tensor in expected.items() if name in found}
    missing = [
        name
        for name, tensor in expected.items()
        if id(tensor) not in there and not name.endswith("num_batches_tracked")
    ]
    surplus = [name for name in found if name not in expected]
    shapes = [
        f"{name} is {list(found[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    kinds = (("missing", missing), ("not in the network", surplus), ("of another shape", shapes))
    return [f"{len(items)} {kind} ({_some(items)})" for kind, items in kinds if items]


def _some(items: list[str]) -> str:
    return ", ".join(items[:SHOWN]) + (", …" if len(items) > SHOWN else "")
