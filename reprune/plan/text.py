"""Write and read the JSON form of a plan, checking every field."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..aliases import Ints
from ..strict_json import is_int, loads

DIMENSIONS = tuple(map(str, range(8)))  # of a tensor that a layer has


class Lists:
    """Lists of positions by number; equal lists are stored once."""

    def __init__(self) -> None:
        self.lists: list[list[int]] = []
        self._known: dict[bytes, int] = {}

    def number(self, positions: Ints) -> int:
        key = positions.tobytes()
        if key not in self._known:
            self._known[key] = len(self.lists)
            self.lists.append(positions.tolist())
        return self._known[key]


def written(content: dict[str, Any]) -> str:
    """Return `content` as JSON with a checksum."""
    text = json.dumps(content)
    return f'{text[:-1]}, "checksum": "{_checksum(text)}"}}'


def fields_of(text: str, version: int) -> dict[str, Any]:
    """Return the typed fields of the plan in `text`, without checking that they fit each other.

    Raises `TypeError` if `text` is no string, `ValueError` for anything else that is wrong.
    """
    if not isinstance(text, str):
        raise TypeError(f"text: expected the JSON of a pruning plan; got a {type(text).__name__}")
    try:
        raw = loads(text)
    except ValueError as error:
        raise ValueError(f"text: expected the JSON of a pruning plan; got something else ({error})") from None
    if not isinstance(raw, dict) or "format" not in raw:
        raise ValueError("text: expected the JSON of a pruning plan; got JSON without a 'format'")
    if raw["format"] != version or type(raw["format"]) is not int:
        raise ValueError(
            f"text: this version of reprune reads plans of format {version}; got format {raw['format']!r}; "
            "use the version that wrote it, or a newer one"
        )
    try:
        return _fields(raw)
    except KeyError as error:
        raise ValueError(f"text: a damaged pruning plan (it has no {error})") from None
    except _WrongError as error:
        raise ValueError(f"text: a damaged pruning plan ({error})") from None


class _WrongError(Exception):
    """Raised for what is wrong with a field."""


def _fields(raw: dict[str, Any]) -> dict[str, Any]:
    if "checksum" in raw and raw.pop("checksum") != _checksum(json.dumps(raw)):
        raise _WrongError("it was changed after it was written; if on purpose, take 'checksum' out")
    lists = [np.array(positions, dtype=np.int64) for positions in _list_of("positions", raw, _ints)]
    pick = _pick(lists)
    return {
        "keep": _dict_of("keep", raw, pick),
        "channels": _dict_of("channels", raw, _count),
        "skipped": _dict_of("skipped", raw, _text),
        "flops": _pair("flops", raw, 0),
        "params": _pair("params", raw, 1),
        "slices": _dict_of("slices", raw, lambda dims: _dims(dims, pick)),
        "shapes": _dict_of("shapes", raw, lambda shape: tuple(_ints(shape))),
        "widths": _dict_of("widths", {"widths": {}} | raw, _count),
        "coverage": _dict_of("coverage", raw, _share),
        "settings": _dict_of("settings", raw, lambda value: value),
        "notes": tuple(_list_of("notes", raw, _text)),
        "fingerprint": _text(raw.get("fingerprint", "")),
    }


def _no(what: str) -> Any:
    raise _WrongError(f"expected {what}")


def _dict_of(key: str, raw: dict[str, Any], item: Callable[[Any], Any]) -> dict[str, Any]:
    values = raw[key]
    if not isinstance(values, dict):
        raise _WrongError(f"{key!r} should be an object")
    return {name: item(value) for name, value in values.items()}


def _list_of(key: str, raw: dict[str, Any], item: Callable[[Any], Any]) -> list[Any]:
    values = raw[key]
    if not isinstance(values, list):
        raise _WrongError(f"{key!r} should be a list")
    return [item(value) for value in values]


def _ints(values: Any) -> list[int]:
    return values if isinstance(values, list) and all(map(is_int, values)) else _no("a list of integers")


def _count(value: Any) -> int:
    return value if is_int(value, 1) else _no("a number of channels")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _no("text")


def _share(value: Any) -> float:
    return float(value) if type(value) in (int, float) and 0 <= value <= 1 else _no("a share of 0 to 1")


def _pair(key: str, raw: dict[str, Any], minimum: int) -> tuple[int, int]:
    values = raw[key]
    if not isinstance(values, list) or len(values) != 2 or not all(is_int(n, minimum) for n in values):
        raise _WrongError(f"{key!r} should be two integers of at least {minimum}")
    return values[0], values[1]


def _pick(lists: list[Ints]) -> Callable[[Any], Ints]:
    return lambda k: lists[k] if is_int(k) and k < len(lists) else _no("the number of a list of positions")


def _dims(dims: Any, pick: Callable[[Any], Ints]) -> dict[int, Ints]:
    if not isinstance(dims, dict) or not all(dim in DIMENSIONS for dim in dims):
        raise _WrongError("expected dimensions and their positions")
    return {int(dim): pick(k) for dim, k in dims.items()}


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
