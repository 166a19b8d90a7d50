"""Encode nested state, as `state_dict()` returns it, as JSON and a list of tensors, without pickle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .tensor_file import check_tensor

ARRAYS = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64"),
)
BITS = 12_000  # of an integer: Python reads no decimal number of more than 4,300 digits


def encode(value: Any, tensors: list[Tensor], where: str) -> Any:
    """Encode `value` for JSON; its tensors are appended to `tensors`.

    Dictionaries, lists, tuples, tensors, arrays of numbers and plain values; `ValueError` that names
    `where` for others, and for what contains itself.
    """
    try:
        return _encode(value, tensors, where)
    except RecursionError:
        raise ValueError(f"{where}: it is nested too deeply, or contains itself") from None


def _encode(value: Any, tensors: list[Tensor], where: str) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int) and value.bit_length() > BITS:
        raise ValueError(f"{where}: expected an integer of at most {BITS} bits; got {value.bit_length()}")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        check_tensor(where, value)
        tensors.append(value.detach())
        return {"tensor": len(tensors) - 1}
    if isinstance(value, np.ndarray) and value.dtype.name in ARRAYS:
        return {"array": value.tolist(), "dtype": value.dtype.name, "shape": list(value.shape)}
    if isinstance(value, (list, tuple)):
        items = [_encode(item, tensors, f"{where}[{k}]") for k, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Mapping):
        pairs = [
            [_encode(key, tensors, where), _encode(item, tensors, f"{where}[{key!r}]")]
            for key, item in value.items()
        ]
        return {"counter" if isinstance(value, Counter) else "dict": pairs}
    what = f"array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise ValueError(
        f"{where}: a {what} cannot be written; expected dictionaries, lists, plain values, arrays of numbers "
        "or tensors"
    )


def decode(value: Any, tensors: Sequence[Tensor]) -> Any:
    """Decode what :func:`encode` returned; raise `ValueError` for anything else.

    Takes no more memory than a small multiple of `value`.
    """
    left = iter(enumerate(tensors))
    try:
        found = _decode(value, left)
    except (TypeError, OverflowError) as error:  # a list as a key, a number too large for an array
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if next(left, None) is not None:
        raise ValueError("a tensor is left over")
    return found


def mapped(value: Any, made: Callable[[Tensor], Tensor]) -> Any:
    """Return `value`, as :func:`decode` returned it, with `made(tensor)` for every tensor."""
    if isinstance(value, Tensor):
        return made(value)
    if isinstance(value, (list, tuple)):
        return type(value)([mapped(item, made) for item in value])
    if isinstance(value, dict):
        return type(value)({mapped(key, made): mapped(item, made) for key, item in value.items()})
    return value


def _decode(value: Any, left: Iterator[tuple[int, Tensor]]) -> Any:
    if isinstance(value, list):
        return [_decode(item, left) for item in value]
    if not isinstance(value, dict):
        return value
    kind = next(iter(value), "")
    content = value.get(kind)
    if value.keys() - {"shape"} == {"array", "dtype"}:
        return _array(value["array"], value["dtype"], value.get("shape"))
    if len(value) == 1 and kind == "tensor":
        number, tensor = next(left, (-1, None))
        if type(content) is not int or content != number:
            raise ValueError("its tensors are not in their order")
        return tensor
    if len(value) == 1 and isinstance(content, list):
        if kind == "tuple":
            return tuple(_decode(item, left) for item in content)
        if kind in ("dict", "counter"):
            pairs = [(_decode(k, left), _decode(v, left)) for k, v in content]
            found = dict(pairs) if kind == "dict" else Counter(dict(pairs))
            if len(found) != len(pairs):
                raise ValueError("a key occurs twice")
            return found
    raise ValueError(f"an object of unknown kind {kind!r}")


def _array(content: Any, dtype: Any, shape: Any) -> Any:
    if dtype not in ARRAYS or not all(type(leaf) in (bool, int, float) for leaf in _leaves(content)):
        raise ValueError("an array that is not one of numbers")
    if np.issubdtype(dtype, np.integer):  # which numpy before 2 lets overflow
        most = np.iinfo(dtype)
        if not all(most.min <= leaf <= most.max for leaf in _leaves(content)):
            raise ValueError(f"a number that is not one of {dtype}")
    found = np.array(content, dtype=dtype)
    return found if shape is None else found.reshape(shape)


def _leaves(content: Any) -> Iterator[Any]:
    if not isinstance(content, list):
        yield content
        return
    for item in content:
        yield from _leaves(item)
