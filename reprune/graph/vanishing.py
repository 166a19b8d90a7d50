"""Remember which activations are zero wherever a channel is masked."""

from __future__ import annotations

from collections.abc import Iterable, Set

from torch import Tensor

from .by_tensor import ByTensor
from .state import storage_of

NOWHERE: Set[int] = frozenset()


class Vanishing:
    """Along which dimensions the tensors of a run are zero at all masked positions, counted from the end.

    The model's `own` tensors are along all, since masking puts zeros there.
    """

    def __init__(self, own: Iterable[Tensor]) -> None:
        self._along: ByTensor[Set[int]] = ByTensor()
        self._spoilt: set[int | None] = set()
        for tensor in own:
            if tensor.is_floating_point():
                self._along[tensor] = frozenset(range(-tensor.dim(), 0))

    def along(self, x: Tensor) -> Set[int]:
        """Return the dimensions along which `x` is known to be zero wherever a channel is masked."""
        found = self._along.get(x)
        return NOWHERE if not found or (self._spoilt and storage_of(x) in self._spoilt) else found

    def set(self, x: Tensor, along: Set[int]) -> None:
        self._along[x] = along

    def spoil(self, x: Tensor) -> None:
        """Note that what is not zero was written to the memory of `x`, which others may show."""
        self._spoilt.add(storage_of(x))
