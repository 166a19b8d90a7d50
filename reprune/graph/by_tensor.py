"""Keep values by tensor, for as long as each tensor lives."""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

from torch import Tensor

T = TypeVar("T")


class ByTensor(Generic[T]):
    """Values by tensor: a WeakTensorKeyDictionary at a fraction of its cost, as a trace asks it all the time.

    A tensor is known by its id; a weak reference says whether that still is the same tensor. When it is gone
    its value stays until another tensor has the id, which costs less than to be told of each: values hold no
    tensors, but where the table `forgets`.
    """

    def __init__(self, forgets: bool = False) -> None:
        entries: dict[int, tuple[weakref.ref[Tensor], T]] = {}

        def forget(gone: weakref.ref[Tensor]) -> None:
            assert isinstance(gone, _Reference)
            entry = entries.get(gone.key)
            if entry is not None and entry[0] is gone:
                del entries[gone.key]

        self._entries, self._forget = entries, forget if forgets else None

    def get(self, x: Tensor) -> T | None:
        """Return the value of `x`, or None."""
        entry = self._entries.get(id(x))
        return entry[1] if entry is not None and entry[0]() is x else None

    def __contains__(self, x: Tensor) -> bool:
        entry = self._entries.get(id(x))
        return entry is not None and entry[0]() is x

    def __setitem__(self, x: Tensor, value: T) -> None:
        if self._forget is None:
            self._entries[id(x)] = weakref.ref(x), value
            return
        reference = _Reference(x, self._forget)
        reference.key = id(x)
        self._entries[id(x)] = reference, value


class _Reference(weakref.ref[Tensor]):
    """A weak reference that knows the id of its tensor, for when that is gone."""

    __slots__ = ("key",)
    key: int
