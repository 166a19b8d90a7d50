"""Arrays in and out: numpy or torch, any real dtype, checked for NaN and infinity."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Array: TypeAlias = "npt.NDArray[Any] | torch.Tensor"
Floats: TypeAlias = npt.NDArray[np.floating[Any]]  # float32 or float64


MOST = 2**30
"""Points, filters or channels, at most: they and what they merge to are numbered in 32 bits."""
MOST_IN_SPACE = 2**24
"""The same for Ward's linkage of several coordinates, which numbers points in digits of a float32."""


def at_most(count: int, most: int, name: str, what: str) -> None:
    if count > most:
        raise ValueError(f"{name}: expected at most {most:,} {what}; got {count:,}")


def shape_of(x: object) -> tuple[int, ...]:
    """The shape of an array or tensor, () of anything else: nothing is copied or converted for it."""
    return tuple(getattr(x, "shape", ()))


def is_tensor(x: object) -> bool:
    torch = sys.modules.get("torch")  # a tensor can only come from a torch that is imported
    return torch is not None and isinstance(x, torch.Tensor)


def device_of(x: object) -> str:
    """The kind of device that ``x`` lies on: "cpu", "cuda", ..."""
    return str(x.device.type) if is_tensor(x) else "cpu"  # type: ignore[attr-defined]


def to_numpy(x: object, name: str) -> npt.NDArray[Any]:
    """``x`` as a numpy array, without a copy where it can; bfloat16 becomes float32."""
    if is_tensor(x):
        import torch

        assert isinstance(x, torch.Tensor)
        if x.is_meta:
            raise TypeError(f"{name}: expected a tensor with values; got one on the device 'meta'")
        if x.layout != torch.strided or x.is_quantized:
            raise TypeError(f"{name}: expected a dense tensor; got {x.layout} of {x.dtype}")
        x = x.detach()
        return (x.float() if x.dtype == torch.bfloat16 else x).resolve_neg().cpu().numpy()
    try:
        return np.asarray(x)
    except ValueError as error:
        raise TypeError(f"{name}: expected an array of numbers; got {type(x).__name__} ({error})") from error


def to_floats(x: object, name: str) -> Floats:
    """``x`` as float32 (for float16, bfloat16, float32) or float64 (for integers, float64), finite, native
    byte order."""
    array = to_numpy(x, name)
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise TypeError(f"{name}: expected real numbers of at most 64 bits; got dtype {array.dtype}")
    single = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    floats = array.astype(np.float32 if single else np.float64, copy=False)
    if any(stride % floats.itemsize for stride in floats.strides) or not floats.flags.aligned:
        floats = np.ascontiguousarray(floats).copy()
    if not finite(floats):
        raise ValueError(f"{name}: expected finite numbers; got NaN or infinity")
    return floats


def finite(x: Floats) -> bool:
    if x.size <= 4096:  # a temporary costs less than what follows
        return bool(np.isfinite(x).all())
    # a sum is NaN or infinite if an element is, and needs no temporary; it can also overflow, so look closer
    # then
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(x.sum())) or bool(np.isfinite(x).all())


def like(x: object) -> Callable[[npt.NDArray[Any]], Any]:
    """A function that turns results into what the argument ``x`` was: numpy arrays, or tensors on its
    device."""
    if not is_tensor(x):
        return lambda result: result
    import torch

    assert isinstance(x, torch.Tensor)
    device = x.device
    return lambda result: torch.from_numpy(np.ascontiguousarray(result)).to(device)


def shown(x: object) -> str:
    """``x`` in one short line, for a message."""
    line = " ".join(repr(x).split())
    return line if len(line) <= 80 else f"{line[:77]}..."


def integer(x: object, name: str, low: int, high: int | None = None) -> int:
    """``x`` as an int in [low, high]: any integer type, also an array or tensor of no dimension."""
    expected = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    value = _index(x)
    if value is None:
        raise TypeError(f"{name}: expected {expected}; got {shown(x)}")
    if value < low or (high is not None and value > high):
        raise ValueError(f"{name}: expected {expected}; got {value}")
    return value


def _index(x: object) -> int | None:
    """An integer; None for what is none, a bool included."""
    scalar = _scalar(x)
    if isinstance(scalar, (bool, np.bool_)) or not hasattr(scalar, "__index__"):
        return None
    value: int = scalar.__index__()
    return value


def _scalar(x: object) -> object:
    """The value of an array or tensor of no dimension; anything else as it is, if it is a plain value."""
    if is_tensor(x) or isinstance(x, np.ndarray):
        return x.item() if x.ndim == 0 and str(getattr(x, "device", "")) != "meta" else None  # type: ignore[attr-defined]
    return x


def number(x: object, name: str, expected: str, before: str = ", ") -> float:
    """``x`` as a float: any real type, also an array or tensor of no dimension; the other arguments are for
    the error, ``before`` stands before "got"."""
    scalar = _scalar(x)
    if isinstance(scalar, (bool, np.bool_)) or not isinstance(scalar, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected {expected}{before}got {shown(x)}")
    try:
        return float(scalar)
    except OverflowError:
        raise ValueError(f"{name}: expected {expected}{before}got {shown(x)}") from None


def one_of(x: object, name: str, choices: Sequence[str]) -> None:
    """Raise ``ValueError`` unless ``x`` is one of ``choices``."""
    if not isinstance(x, str) or x not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}; got {shown(x)}")


def text(x: object, name: str) -> str:
    """``x``, which must be a string."""
    if not isinstance(x, str):
        raise TypeError(f"{name}: expected a string; got {shown(x)}")
    return x


def strings(x: Any, name: str, expected: str) -> tuple[str, ...]:
    """The strings of any collection or iterator, those of a set in order."""
    try:
        found: tuple[Any, ...] | None = None if isinstance(x, (str, bytes)) else tuple(x)
    except TypeError:
        found = None
    if found is None or not all(isinstance(item, str) for item in found):
        raise TypeError(f"{name}: expected {expected}, got {shown(x if found is None else list(found))}")
    return tuple(sorted(found)) if isinstance(x, (set, frozenset)) else found


def seed_of(x: object) -> int:
    """``seed``: any integer; it counts modulo 2**64."""
    value = _index(x)
    if value is None:
        raise TypeError(f"seed: expected an integer; got {shown(x)}")
    return value % 2**64
