"""Nested state, as PyTorch's ``state_dict()`` returns it, as JSON and a list of tensors, and back.  No
pickle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor


def encode(value: Any, tensors: list[Tensor], where: str) -> Any:
    """`value` as what JSON can hold; its tensors are appended to `tensors`.

    Dictionaries, lists, tuples, tensors, arrays and plain values; ``ValueError`` that names `where` for
    others.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        tensors.append(value.detach())
        return {"tensor": len(tensors) - 1}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": str(value.dtype)}
    if isinstance(value, (list, tuple)):
        items = [encode(item, tensors, f"{where}[{k}]") for k, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Mapping):
        kind = "counter" if isinstance(value, Counter) else "dict"
        pairs = value.items()
        return {kind: [[encode(k, tensors, where), encode(v, tensors, f"{where}[{k!r}]")] for k, v in pairs]}
    raise ValueError(
        f"{where}: a {type(value).__name__} cannot be written; expected dictionaries, lists, plain values, "
        f"tensors"
    )


def decode(value: Any, tensors: Sequence[Tensor]) -> Any:
    """What :func:`encode` was given; ``KeyError`` or another ``LookupError`` if `value` is damaged."""
    if isinstance(value, list):
        return [decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "array" in value:
        return np.array(value["array"], dtype=value["dtype"])
    if "tuple" in value:
        return tuple(decode(item, tensors) for item in value["tuple"])
    kind = Counter if "counter" in value else dict
    pairs = value["counter"] if "counter" in value else value["dict"]
    return kind({decode(k, tensors): decode(v, tensors) for k, v in pairs})
