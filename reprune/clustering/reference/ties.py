"""Break ties by a hash of (seed, layer name, step, filter) in 32-bit integer arithmetic.

Counter-based: no state, so every backend, thread and rank draws the same winner in any order. All operations
are modulo `2**32`::

    key    = fnv1a(name as UTF-8)                      # 32-bit FNV-1a
    key    = mix(key ^ low 32 bits of seed)
    key    = mix(key + high 32 bits of seed)           # once per layer
    k      = mix(key + step * 0x9E3779B9)              # once per step
    value  = mix(k ^ (filter * 0x85EBCA6B))            # once per filter; the smallest value wins

`mix` is a bijection and both multipliers are odd, so no two filters of a step have the same value.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Words = TypeVar("Words", int, npt.NDArray[Any])
"""Words of 32 bits: one, or an array uint64."""

LOW = 2**32 - 1


def _mix(x: Words) -> Words:
    """Apply a bijection of 32-bit words with little bias (C. Wellons, "lowbias32")."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D & LOW
    x = x ^ (x >> 15)
    x = x * 0x846CA68B & LOW
    return x ^ (x >> 16)


@lru_cache(maxsize=2**14)  # a model's layers are asked for again and again
def tie_key(seed: int, name: str) -> int:
    """Return the hash key of one layer; `seed` is taken modulo `2**64`."""
    key = 0x811C9DC5
    for byte in name.encode():
        key = (key ^ byte) * 0x01000193 & LOW
    key = _mix(key ^ (seed & LOW))
    return _mix(key + (seed >> 32 & LOW) & LOW)


def tie_values(key: int, step: int, filters: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Return the hashes of `filters` [m] at `step`; the filter with the smallest hash wins the tie."""
    step_key = _mix(key + step * 0x9E3779B9 & LOW)
    words = filters.astype(np.uint64) * 0x85EBCA6B & LOW
    return _mix(words ^ step_key).astype(np.uint32)
