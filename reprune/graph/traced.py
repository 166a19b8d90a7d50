"""Hold a model after its first trace: labels, atoms and steps."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_iter, tree_map

from ..aliases import Ints
from ..modules.heads import for_any_heads
from ..modules.norms import for_any_width
from ..modules.slicing import named_tensors, sliced_copy
from .classes import depends_on_classes
from .cost import Cost, cost_of, parameter_cost
from .labels import FIXED, Atoms, fixed, solve
from .norms import norms_seen
from .preserving import preserving
from .propagation import Key
from .splitting import PACKED
from .steps import Step
from .tracer import Tracer, fresh_labels, run
from .without_values import NeedsValuesError

Example = tuple[tuple[Any, ...], dict[str, Any]]
"""(positional, keyword) arguments of a forward pass."""


@dataclass(frozen=True)
class TracedModel:
    """What one trace says about a model."""

    labels: Mapping[Key, Ints]
    """The index map: {(tensor, dim): the label of each position}."""
    norms: Mapping[str, Ints]
    """{norm without tensors: the labels of its input channels}."""
    atoms: Atoms
    flops: Cost
    params: Cost
    guesses: list[int]
    steps: list[Step]
    """The steps of the run."""
    data_dependent: bool
    twice: bool
    """Whether a pass changes the next one, so that two were made in evaluation mode."""
    training_problem: str | None
    """Why the model could not be traced in training mode too."""
    heads: frozenset[int] = frozenset()
    """The atoms that are heads of an attention."""
    shapes: bool = False
    """Whether the model was traced on the device "meta", without values."""
    own_classes: bool = False
    """Whether modules had their own classes, as what the model computes depends on these."""

    def slices(self, kept: npt.NDArray[np.bool_]) -> dict[str, dict[int, Ints]]:
        """Return {tensor: {dim: kept positions}} of the dimensions that shrink to `kept` [atoms]."""
        slices: dict[str, dict[int, Ints]] = {}
        for (name, dim), ids, left in self.left(kept[self.atoms.atom_of]):
            if left.size < ids.size:
                slices.setdefault(name, {})[dim] = left - ids[0]
        return slices

    def left(
        self, stays: npt.NDArray[np.bool_], dtype: npt.DTypeLike = np.int64
    ) -> Iterator[tuple[Key, Ints, Ints]]:
        """Yield each dimension, its labels, and those among them that are in `stays` [labels]."""
        # the labels of a dimension are consecutive, and those of all dimensions follow each other
        left, begin = np.flatnonzero(stays).astype(dtype, copy=False), 0
        for (key, ids), count in zip(self.labels.items(), self._counts(stays), strict=True):
            yield key, ids, left[begin : begin + count]
            begin += count

    def widths(self, kept: npt.NDArray[np.bool_]) -> dict[str, int]:
        """Return {norm without tensors: channels left} when the atoms `kept` [atoms] stay."""
        stays, atom_of = np.append(kept, True), np.append(self.atoms.atom_of, fixed(1))
        return {name: int(stays[atom_of[ids]].sum()) for name, ids in self.norms.items()}

    def filled(self, kept: npt.NDArray[np.bool_], minimum: int = 1) -> npt.NDArray[np.bool_]:
        """Return `kept` plus the first atoms needed for at least `minimum` positions per dimension.

        A layer may see only a part of a group's channels, and possibly none of these is in `kept`.
        """
        kept = kept.copy()
        counts = self._counts(kept[self.atoms.atom_of])
        if min(counts, default=minimum) >= minimum:
            return kept
        for ids, count in zip(self.labels.values(), counts, strict=True):
            if count >= minimum:
                continue  # it may only become more
            atoms = self.atoms.atom_of[ids]
            for atom in atoms:
                if np.count_nonzero(kept[atoms]) >= minimum:
                    break
                kept[atom] = True
        return kept

    def _counts(self, marked: npt.NDArray[np.bool_]) -> list[int]:
        """Return how many labels are `marked` [labels] along each labelled dimension."""
        before = np.append(0, np.cumsum(marked))
        counts: list[int] = np.diff(before[self._ends], prepend=0).tolist()
        return counts

    @property
    def free(self) -> int:
        """How many positions may be removed."""
        return int(np.count_nonzero(~np.isin(self.atoms.atom_of, list(self.atoms.pinned))))

    @functools.cached_property
    def _ends(self) -> npt.NDArray[np.int64]:
        """Where the labels of each dimension end."""
        return np.cumsum([ids.size for ids in self.labels.values()], dtype=np.int64)


_NONE: Mapping[tuple[int, int], int] = MappingProxyType({})

LARGE_BYTES = 2**22
"""Size of tensors and example inputs above which a pass without values is cheaper than one with them."""


def trace_model(model: nn.Module, example: Example) -> tuple[TracedModel, Tracer]:
    """Run `model` once and solve the constraints that the trace states.

    The model is unchanged.

    A large model is run without values, if it can be, and one that has some tensors on the device "meta" in
    any case.
    """
    held = [*named_tensors(model).values(), *(x for x in tree_iter(example) if isinstance(x, Tensor))]
    if 0 < sum(t.is_meta for t in held) < len(held):
        try:
            return _best_traced(model, example, shapes=True)
        except NeedsValuesError as error:
            raise ValueError(
                f"model: it can be followed with its values alone ({error}), and its parameters have none: "
                "they are on the device 'meta', or sharded over processes; make the plan before it is sharded"
            ) from error
    if sum(t.nbytes for t in held) >= LARGE_BYTES and not any(t.is_meta for t in held):
        try:
            return _best_traced(model, example, shapes=True)
        except TimeoutError:
            raise
        except Exception:  # it reads values, or an operation has no form without them
            pass
    return _best_traced(model, example, shapes=False)


def _best_traced(model: nn.Module, example: Example, shapes: bool) -> tuple[TracedModel, Tracer]:
    """Run `model`, and once more if parts that carry were guessed wrong."""
    first = _traced(model, example, shapes)
    turned = _wrong_guesses(*first)
    if not turned:
        return first
    second = _traced(model, example, shapes, turned)
    return max(first, second, key=lambda run: run[0].free)


def _wrong_guesses(traced: TracedModel, trace: Tracer) -> dict[tuple[int, int], int]:
    """Return {place: the other part} of the splits in which what carries cannot be removed.

    A part cannot be removed that is summed over, indexed by number and so on, and another may; but not where
    the whole tensor is pinned, nor where it only meets what cannot be removed. What is split alike is turned
    with it: queries, keys and values.
    """
    free = np.ones(traced.atoms.count, dtype=bool)
    free[list(traced.atoms.pinned)] = False
    wrong = set()
    for split in trace.known.splits:
        atoms = np.unique(traced.atoms.atom_of[split.labels[split.labels != FIXED]])
        reasons = {traced.atoms.pinned[atom] for atom in atoms.tolist() if not free[atom]}
        unsure = len(split.sizes) == 2 and split.sizes[0] <= PACKED
        others = () if unsure else ("meets ", "is merged ")
        if not free[atoms].any() and not any(
            why in trace.known.whole or why.startswith(others) for why in reasons
        ):
            wrong.add(split.sizes)
    return {split.place: split.other for split in trace.known.splits if split.sizes in wrong}


def _traced(
    model: nn.Module, example: Example, shapes: bool, turned: Mapping[tuple[int, int], int] = _NONE
) -> tuple[TracedModel, Tracer]:
    tensors = named_tensors(model)
    labels, count = fresh_labels(tensors)
    device = device_of(model, example) if shapes else None
    given = without_values(example) if shapes else example
    own_classes = depends_on_classes(model, given, shapes, device)
    ran = sliced_copy(model, {}, {}, shapes)
    if not own_classes:
        ran = for_any_width(for_any_heads(ran))
    own = named_tensors(ran)
    with preserving(model, example) as preserved:
        trace = Tracer(own, labels, preserved, device=device, turned=turned)
        with norms_seen(ran, trace.known) as norms:
            how = run(ran, given, trace)
    if shapes:
        if trace.data_dependent or how.problem is not None:
            raise NeedsValuesError(how.problem or "what it computes depends on the data")
        _with_values(trace, labels, own, tensors)
    atoms = solve(trace.known.constraints, count)
    heads = [ids[ids != FIXED] for ids in trace.known.heads]
    traced = TracedModel(
        labels=labels,
        norms=norms,
        atoms=atoms,
        flops=cost_of(trace.costs, atoms),
        params=parameter_cost(model, labels, atoms),
        guesses=trace.known.guesses,
        steps=trace.steps,
        data_dependent=trace.data_dependent,
        twice=how.twice,
        training_problem=how.problem,
        heads=frozenset(np.unique(atoms.atom_of[np.concatenate([fixed(0), *heads])]).tolist()),
        shapes=shapes,
        own_classes=own_classes,
    )
    return traced, trace


def _with_values(
    trace: Tracer, labels: Mapping[Key, Ints], shapes: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Give convolutions the model's own `tensors` as kernels, in place of those in `shapes`.

    Raises `NeedsValuesError` for kernels that are computed from these.

    The kernels of computed weights are not among the tensors themselves.
    """
    owner = {int(ids[0]): name for (name, _), ids in labels.items()}
    for first, convolution in trace.known.convolutions.items():
        name = owner.get(first)
        if name is None:
            continue  # a part of a tensor, which is no layer's
        seen, shape, value = convolution.kernel, shapes[name], tensors[name]
        if seen.untyped_storage()._cdata != shape.untyped_storage()._cdata:
            raise NeedsValuesError(f"the weight of {name} is computed")
        if shape.stride() == value.stride():
            begin = seen.storage_offset() - shape.storage_offset() + value.storage_offset()
            real = value.as_strided(seen.shape, seen.stride(), begin)
            trace.known.convolutions[first] = replace(convolution, kernel=real)
            continue
        for mine, real in ((shape, value), (shape.transpose(0, -1), value.transpose(0, -1))):
            if (seen.shape, seen.stride()) == (mine.shape, mine.stride()):
                trace.known.convolutions[first] = replace(convolution, kernel=real)
                break
        else:
            raise NeedsValuesError(f"the strides of {name} are others")


def device_of(model: nn.Module, example: Example) -> torch.device:
    """Return the device of the values of `model`, or of its `example`."""
    inputs = (x for x in tree_iter(example) if isinstance(x, Tensor))
    held = chain(model.parameters(), model.buffers(), inputs)
    return next((t.device for t in held if not t.is_meta), torch.device("cpu"))


def without_values(example: Example) -> Example:
    """Return `example` with its floating-point tensors on the device "meta"."""
    shapes: Example = tree_map(
        lambda x: x.to("meta") if isinstance(x, Tensor) and x.is_floating_point() else x, example
    )
    return shapes


def as_example(example_inputs: Any) -> Example:
    """Return a tensor, a tuple of arguments or a dictionary of keyword arguments as (args, kwargs)."""
    if isinstance(example_inputs, Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, dict):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    raise TypeError(
        "example_inputs: expected a tensor, a tuple of positional arguments or a dictionary of "
        "keyword arguments of "
        f"the model; got {type(example_inputs).__name__}"
    )
