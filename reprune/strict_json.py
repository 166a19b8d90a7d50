"""JSON from files that may be damaged: one kind of error, and no key twice."""

from __future__ import annotations

import json
from typing import Any, TypeGuard


def loads(text: str) -> Any:
    """What `json.loads` returns; `ValueError` for whatever is wrong with `text`, a doubled key too."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def is_int(value: Any, least: int = 0) -> TypeGuard[int]:
    """Is `value` an integer, no boolean, of at least `least`, and one that 63 bits hold?"""
    return type(value) is int and least <= value < 2**63
