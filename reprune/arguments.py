"""Check the arguments of public functions and name them in errors."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np


def is_tensor(x: object) -> bool:
    torch = sys.modules.get("torch")  # a tensor can only come from a torch that is imported
    return torch is not None and isinstance(x, torch.Tensor)


def at_most(count: int, most: int, name: str, what: str) -> None:
    if count > most:
        raise ValueError(f"{name}: expected at most {most:,} {what}; got {count:,}")


def shown(x: object) -> str:
    """Return `x` as one short line for a message."""
    line = " ".join(repr(x).split())
    return line if len(line) <= 80 else f"{line[:77]}..."


def integer(x: object, name: str, low: int, high: int | None = None) -> int:
    """Return `x` as an int in [low, high]; accepts any integer type, also a 0-d array or tensor."""
    expected = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    value = _index(x)
    if value is None:
        raise TypeError(f"{name}: expected {expected}; got {shown(x)}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name}: expected {expected}; got {value}")
    return value


def _index(x: object) -> int | None:
    """Return `x` as an int, or None if it is not an integer; a bool is not one."""
    scalar = _scalar(x)
    if isinstance(scalar, (bool, np.bool_)) or not hasattr(scalar, "__index__"):
        return None
    value: int = scalar.__index__()
    return value


def _scalar(x: object) -> object:
    """Return the value of a 0-d array or tensor, and any other plain value unchanged."""
    if is_tensor(x) or isinstance(x, np.ndarray):
        return x.item() if x.ndim == 0 and str(getattr(x, "device", "")) != "meta" else None  # type: ignore[attr-defined]
    return x


def number(x: object, name: str, expected: str) -> float:
    """Return `x` as a float; accepts any real type, also a 0-d array or tensor.

    `expected` completes the error message.
    """
    scalar = _scalar(x)
    if isinstance(scalar, (bool, np.bool_)) or not isinstance(scalar, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected {expected}; got {shown(x)}")
    try:
        return float(scalar)
    except OverflowError:
        raise ValueError(f"{name}: expected {expected}; got {shown(x)}") from None


def one_of(x: object, name: str, choices: Sequence[str]) -> None:
    """Raise `ValueError` unless `x` is one of `choices`."""
    if not isinstance(x, str) or x not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}; got {shown(x)}")


def text(x: object, name: str) -> str:
    """Return `x` if it is a string, else raise `TypeError`."""
    if not isinstance(x, str):
        raise TypeError(f"{name}: expected a string; got {shown(x)}")
    return x


def strings(x: Any, name: str, expected: str) -> tuple[str, ...]:
    """Return the strings of any collection or iterator as a tuple, those of a set sorted."""
    try:
        found: tuple[Any, ...] | None = None if isinstance(x, (str, bytes)) else tuple(x)
    except TypeError:
        found = None
    if found is None or not all(isinstance(item, str) for item in found):
        raise TypeError(f"{name}: expected {expected}; got {shown(x if found is None else list(found))}")
    return tuple(sorted(found)) if isinstance(x, (set, frozenset)) else found


def seed_of(x: object) -> int:
    """Return `seed` modulo 2**64; it may be any integer."""
    value = _index(x)
    if value is None:
        raise TypeError(f"seed: expected an integer; got {shown(x)}")
    return value % 2**64


def similar(name: str, names: Collection[str]) -> list[str]:
    """Return at most three of `names` that are like `name`, the most like first."""
    return difflib.get_close_matches(name, names, n=3)


def nearest(name: str, names: Collection[str]) -> str:
    """Return the three `names` most similar to `name`, or the first three, for a message."""
    return ", ".join(similar(name, names) or list(names)[:3])
