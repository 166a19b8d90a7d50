"""Check which target was given, and that it is valid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..arguments import integer, number, shown, strings

Target = tuple[str, Any]
"""(name, value), such as ("flops", 0.5)."""


def target_of(
    sparsity: float | None,
    flops: float | None,
    params: float | None,
    keep: Mapping[str, int] | None,
    latency: float | None = None,
    size_mb: float | None = None,
) -> Target:
    """Return the one target that was given."""
    numbers = {
        "sparsity": sparsity,
        "flops": flops,
        "params": params,
        "latency": latency,
        "size_mb": size_mb,
    }
    given: list[Target] = [(name, value) for name, value in numbers.items() if value is not None]
    if keep is not None:
        given.append(("keep", keep))
    if len(given) != 1:
        names = ", ".join(name for name, _ in given) or "none"
        raise ValueError(
            f"expected exactly one target of sparsity, flops, params, latency, size_mb and keep; got {names}"
        )
    name, value = given[0]
    if name == "keep":
        return name, _counts(value)
    expected = "a number of megabytes above 0" if name == "size_mb" else "a number between 0 and 1"
    value = number(value, name, expected)
    if not 0 < value < (math.inf if name == "size_mb" else 1):
        exclusive = "" if name == "size_mb" else " (exclusive)"
        raise ValueError(f"{name}: expected {expected}{exclusive}; got {value!r}")
    return name, value


def _counts(keep: Any) -> dict[str, int]:
    if not isinstance(keep, Mapping):
        raise TypeError(f"keep: expected {{layer: channels}}; got {shown(keep)}")
    names = strings(list(keep), "keep", "names of layers")
    return {name: integer(keep[name], f"keep[{name!r}]", 1) for name in names}


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise `ValueError` unless `value` is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}; got {shown(value)}")
