"""Run both networks on all images, operation by operation.

All images stand at the same operation of both networks: there a layer's inputs, as the layers before it now
make them, meet the outputs that it should have. So everything runs once, and what is held is what lies
between two operations. Where that is too much for all images, as on large maps, a part of them begins, which
has many positions there; the rest joins, from its start, as soon as the memory allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise

from torch import Tensor

from .calls import Call
from .pair import Pair
from .paused import PausedPass
from .sequence import Event


class Wave:
    """Both networks on the images that joined together."""

    def __init__(self, pair: Pair, images: range) -> None:
        self.images, self._name = images, pair.images.name
        inputs = [pair.inputs(images.start, images.stop) for _ in range(2)]  # all that may fail
        self.small = PausedPass(pair.small, inputs.pop(), pair.device)
        self.dense = PausedPass(pair.dense, inputs.pop(), pair.device)

    def calls(self, event: Event) -> tuple[Call, Call]:
        """Return the operation at which both networks are."""
        dense, small = self.dense.next(), self.small.next()
        if dense is None or small is None or not dense.name == small.name == event.name:
            raise ValueError(
                f"{self._name}: the networks take another way at {event.layer} for some images than for "
                "others; only networks that run the same operations for all of them can be compensated"
            )
        return dense, small


class Lockstep:
    """The waves of a pair; :meth:`close` has to be called in any case."""

    def __init__(self, pair: Pair) -> None:
        self._pair, self._capacities = pair, pair.capacities()
        self._waves: list[Wave] = []

    @property
    def joined(self) -> int:
        """How many images have joined."""
        return self._waves[-1].images.stop if self._waves else 0

    def at(self, k: int, values: Mapping[str, Tensor]) -> Iterator[tuple[Wave, Call, Call]]:
        """Let images join at operation `k`, and yield each wave with the calls at which its networks are."""
        self._admit(k, values)
        for wave in self._waves:
            yield (wave, *wave.calls(self._pair.events[k]))

    def _admit(self, k: int, values: Mapping[str, Tensor]) -> None:
        """Begin with all images that are left, or with as many as have joined, if there is room.

        They run in waves that are small enough for the operations before `k`.
        """
        count, have = self._pair.images.count, self.joined
        most = min(count, self._capacities[k])
        if count - most == 1:
            most = count  # one image alone may lose its dimension in the network
        if most <= have or (most < count and most < 2 * have):
            return
        each = min(self._capacities[: k + 1])  # all that lies before has to fit too
        for start, stop in pairwise([*range(have, most - 1, each), most]):  # never one image alone
            wave = Wave(self._pair, range(start, stop))
            self._waves.append(wave)
            for event in self._pair.events[:k]:
                dense, small = wave.calls(event)
                wave.dense.answer(dense.run({}))
                wave.small.answer(small.run(values))

    def close(self) -> None:
        """End all passes."""
        for wave in self._waves:
            wave.dense.close()
            wave.small.close()
