"""Keep what is known of a run's tensors and what its operations say about labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from ..aliases import Ints
from .by_tensor import ByTensor
from .labels import Constraints
from .state import FREE, Convolution, Dim, State, storage_of
from .vanishing import Vanishing

Key = tuple[str, int]
"""A dimension of a parameter or buffer: (name, dim)."""


class Split(NamedTuple):
    """A dimension that was split, and a guess as to which part of it carries."""

    place: tuple[int, int]
    """(index of the call, dimension)."""
    other: int
    """The part that may carry instead."""
    sizes: tuple[int, ...]
    """The sizes of the parts."""
    labels: Ints


class Propagation:
    """The states of all live tensors, and the constraints: what rules read and write."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        labels: Mapping[Key, Ints],
        guesses: Sequence[int] = (),
        turned: Mapping[tuple[int, int], int] = MappingProxyType({}),
    ) -> None:
        self.constraints = Constraints()
        self.guesses: list[int] = []
        """Guesses that rules made, in order; a sliced model must repeat those of the full one."""
        self._given = iter(guesses)
        self.splits: list[Split] = []
        """The guesses that have an alternative."""
        self.heads: list[Ints] = []
        """What an attention, or a product of activations, works on one by one."""
        self.turned = turned
        """{(index of the call, dimension): what to guess there}."""
        self.calls = 0
        """The calls before this one."""
        self.unread: dict[int, tuple[Ints, str]] = {}
        """{memory of a result: labels that are pinned as soon as it is read, and why}."""
        self.whole: set[str] = set()
        """The reasons for which all dimensions of a tensor were pinned at once."""
        self.followed: dict[Any, Any] = {}
        """Where operations that only move values took positions, by what decides it."""
        self.convolutions: dict[int, Convolution] = {}
        """{first label of the kernels' output dimension: convolution}."""
        self.vanishing = Vanishing(tensors.values())
        """Which tensors are zero wherever a channel is masked."""
        self._states: ByTensor[State] = ByTensor()
        self._bases: ByTensor[Tensor] = ByTensor(forgets=True)
        self._viewed: ByTensor[bool] = ByTensor()
        self._blanks: ByTensor[int] = ByTensor()
        """The number of the blank tensor that each was computed from."""
        self._count_of_blanks = 0
        self._taken: dict[tuple[int, int], Ints] = {}
        self._own = frozenset(map(id, tensors.values()))
        self._labels = labels
        self.constraints.have_no_fixed(labels.values())
        for name, tensor in tensors.items():
            dims: list[Dim] = [labels.get((name, dim)) for dim in range(tensor.dim())]
            self._states[tensor] = State(tuple(dims), is_activation=False)

    def state(self, x: Tensor) -> State:
        """Return what is known of `x`; a tensor that was never seen is a constant."""
        known = self._states.get(x)
        return known if known is not None else State((None,) * x.dim(), is_activation=False)

    def knows(self, x: Tensor) -> bool:
        """Return whether `x` was seen in this run."""
        return x in self._states

    def set(self, x: Tensor, dims: list[Dim], is_activation: bool) -> None:
        self._states[x] = State(tuple(dims), is_activation)

    def made_of(self, x: Tensor, tensors: Sequence[Tensor]) -> None:
        """Record that `x` was computed from `tensors`: where it is FREE it has the size of a blank one."""
        if any(dim is FREE for dim in self.state(x).dims):
            blanks = (found for y in tensors if (found := self._blanks.get(y)) is not None)
            self._count_of_blanks += 1
            self._blanks[x] = next(blanks, self._count_of_blanks)

    def take_size(self, x: Tensor, k: int, labels: Ints, why: str) -> None:
        """Unite `labels`, which met dimension `k` of `x`, with those that met the same blank tensor before.

        A constant for all of them has as many positions as there are labels, and so it must be for the next.
        """
        blank = self._blanks.get(x)
        if blank is not None:
            first = self._taken.setdefault((blank, k), labels)
            if first is not labels:
                self.unite(first, labels, why)

    def is_activation(self, x: Tensor) -> bool:
        """Return whether `x` depends on the model's input.

        Parameters and buffers do not, unless such a value was written into them.
        """
        base: Tensor | None = x
        while base is not None:
            if id(base) in self._own:
                return False
            base = self._bases.get(base)
        return self.state(x).is_activation

    def alias(self, x: Tensor, base: Tensor) -> None:
        """Record that `x` is another name of `base`."""
        if self.knows(base):
            self._states[x] = self.state(base)
            self.vanishing.set(x, self.vanishing.along(base))
            self.viewed(x, base)

    def choose(self, guess: int) -> int:
        """Return `guess`, or what was guessed here when the full model ran."""
        self.guesses.append(next(self._given, guess))
        return self.guesses[-1]

    def choose_part(self, guess: int, other: int, k: int, sizes: tuple[int, ...], labels: Ints) -> int:
        """Return which part of dimension `k` carries its `labels`, by :meth:`choose`.

        Its parts have `sizes`, and `other` is the next best.
        """
        place = self.calls, k
        self.splits.append(Split(place, other, sizes, labels))
        return self.choose(self.turned.get(place, guess))

    def viewed(self, view: Tensor, base: Tensor) -> None:
        """Record that `view` shares memory with `base`."""
        self._bases[view] = base
        self._viewed[base] = True

    def resized(self, x: Tensor, why: str) -> None:
        """Record that the memory of `x` is laid out anew: what else is known by it has to stay as it is."""
        if x in self._bases or x in self._viewed:
            shown: Tensor | None = x
            while shown is not None:
                self.pin(shown, why)
                shown = self._bases.get(shown)

    def write(self, x: Tensor, dims: list[Dim], is_activation: bool, why: str) -> None:
        """Record that `x` was written in place.

        A blank tensor adopts what is written, unless other views show parts of it.
        """
        known = self.state(x)
        shared = x in self._bases or x in self._viewed
        for k, (old, new) in enumerate(zip(known.dims, dims, strict=True)):
            if old is FREE and shared and new is not FREE:
                if new is not None:
                    self.constraints.pin(new, f"{why} writes into a part of a tensor")
                dims[k] = None
        self.set(x, dims, is_activation or known.is_activation)
        base: Tensor | None = self._bases.get(x)
        while base is not None:  # a write into a part makes the whole vary
            was = self.state(base)
            self.set(base, [None if d is FREE else d for d in was.dims], is_activation or was.is_activation)
            base = self._bases.get(base)

    def pin(self, x: Tensor, why: str, dims: list[int] | None = None) -> None:
        """Require all labels of `x`, or those along `dims`, to be kept."""
        self.pin_state(self.state(x), why, dims)

    def pin_state(self, state: State | None, why: str, dims: list[int] | None = None) -> None:
        """Require all labels of a tensor with this `state`, or those along `dims`, to be kept."""
        if state is None:
            return
        if dims is None:
            self.whole.add(why)
        for k in state.labelled() if dims is None else dims:
            labels = state.labels(k)
            if labels is not None:
                self.constraints.pin(labels, why)

    def pin_if_read(self, out: Tensor, labels: Ints, why: str) -> None:
        """Require `labels` to be kept if anything reads the result `out` of a call."""
        where = storage_of(out)
        if where is None:
            self.constraints.pin(labels, why)
        else:
            self.unread[where] = labels, why

    def read(self, where: int | None) -> None:
        """Note that what is in this memory is read."""
        if where in self.unread:
            self.constraints.pin(*self.unread.pop(where))

    def unite(self, a: Dim, b: Dim, why: str) -> Dim:
        """Unite two dimensions of one size and return the result's; a fixed one pins the other."""
        if a is None or a is FREE or b is None or b is FREE:
            for one, other in ((a, b), (b, a)):
                if one is None and other is not None and other is not FREE:
                    self.constraints.pin(other, why)
            return b if a is FREE or (a is None and b is not FREE) else a
        self.constraints.unite(a, b, why)
        return a

    def convolved(self, kernels: Dim, convolution: Convolution) -> None:
        """Record a convolution whose kernels have an output dimension that can be pruned."""
        if kernels is not None and kernels is not FREE:
            self.convolutions.setdefault(int(kernels[0]), convolution)
