"""Which target was given, and whether it can be one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Target = tuple[str, Any]
"""(what, how much): ("flops", 0.5)."""


def target_of(
    sparsity: float | None,
    flops: float | None,
    params: float | None,
    keep: Mapping[str, int] | None,
    latency: float | None = None,
    size_mb: float | None = None,
) -> Target:
    """The one target that was given."""
    numbers = {
        "sparsity": sparsity,
        "flops": flops,
        "params": params,
        "latency": latency,
        "size_mb": size_mb,
    }
    given: list[Target] = [(name, value) for name, value in numbers.items() if value is not None]
    if keep is not None:
        given.append(("keep", dict(keep)))
    if len(given) != 1:
        names = ", ".join(name for name, _ in given) or "none"
        raise ValueError(
            f"expected exactly one target of sparsity, flops, params, latency, size_mb and keep; got {names}"
        )
    name, value = given[0]
    if name == "keep":
        return name, value
    expected = "a number of megabytes above 0" if name == "size_mb" else "a number between 0 and 1"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected {expected}, got {value!r}")
    if not 0 < value < (math.inf if name == "size_mb" else 1):
        exclusive = "" if name == "size_mb" else " (exclusive)"
        raise ValueError(f"{name}: expected {expected}{exclusive}, got {value!r}")
    return name, value


def choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ``ValueError`` unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")
