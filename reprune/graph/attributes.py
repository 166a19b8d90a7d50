"""Tell whether a pass has changed what hangs on modules: it fills a cache, adds a layer or counts."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import chain
from typing import Any

from torch import nn


class Attributes:
    """What hangs on `modules`, and what is in the containers among it, such as other modules."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._values = self._hanging()
        self._containers = [value for value in self._values if isinstance(value, (dict, list))]
        self._inside = self._contents()

    def are_others(self) -> bool:
        """Return whether it is not all the same as before."""
        return not (_same(self._values, self._hanging()) and _same(self._inside, self._contents()))

    def _hanging(self) -> list[Any]:
        return list(chain.from_iterable([module.__dict__.values() for module in self._modules]))

    def _contents(self) -> list[Any]:
        found: list[Any] = []
        for one in self._containers:
            if one:
                found += one.values() if isinstance(one, dict) else one
        return found


def _same(one: list[Any], other: list[Any]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))
