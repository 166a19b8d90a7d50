"""Keep what never changes about a pruner's model: the graph of the full model, traced once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.func import functional_call

from ..aliases import Ints
from ..graph import AtomMask, ChannelGraph, Producer, build_graph, output_first
from ..modules.linear import is_linear, is_turned
from ..modules.sharded import Piece, is_part, is_sharded, whole
from ..modules.slicing import named_tensors
from ..modules.wrappers import named_modules
from ..targets import Settings, in_scope, rankable, without_ignored
from .decide import FullWeights
from .store import Layout
from .zeros import check_zeros, spared_dims


class Structure:
    """The groups of channels of the full model, and how they relate to its tensors."""

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Any,
        settings: Settings,
    ) -> None:
        graph = build_graph(model, example_inputs, layers=settings.layers)
        graph = in_scope(without_ignored(graph, settings.ignore), settings.scope)
        full = rankable(graph, settings.rule)
        producers = [p for group in full.groups for p in group.producers]
        self._inputs = {p.name: _inputs(full, p) for p in producers}
        self._computed = _computed(full, producers)
        self._example = full.example
        self.graph = _light(full)
        traced = full.traced
        self._movable = movable = np.zeros(traced.atoms.count, dtype=bool)
        for group in full.groups:
            movable[group.atoms] = True
        self._atoms_along: dict[str, dict[int, Ints]] = {}
        for (name, dim), ids in traced.labels.items():
            atoms = traced.atoms.atom_of[ids]
            if movable[atoms].any():
                self._atoms_along.setdefault(name, {})[dim] = atoms

    def spared(self, model: nn.Module) -> dict[str, set[int]]:
        """Return {tensor: dimensions} along which zeros do not take channels out of `model`."""
        return spared_dims(model, self._atoms_along)

    def alive_in(self, tensors: Mapping[str, Tensor], spared: Mapping[str, set[int]]) -> AtomMask:
        """Return the atoms that have anything but zeros in `tensors`, some of the full model's.

        Along the dimensions in `spared`, values never are all zero and are not looked at.
        """
        alive = ~self._movable
        for name, dims in self._atoms_along.items():
            if name in tensors:
                there = (tensors[name] != 0).cpu().numpy()
                for dim in dims.keys() - spared.get(name, set()):
                    others = tuple(k for k in range(there.ndim) if k != dim)
                    alive[dims[dim][there.any(axis=others)]] = True
        return self.graph.traced.filled(alive)

    def layout(self, alive: AtomMask) -> dict[str, dict[int, Ints]]:
        """Return {sliceable tensor: {dimension: positions present}} with the atoms `alive`."""
        return {
            name: {dim: np.flatnonzero(alive[atoms]) for dim, atoms in dims.items()}
            for name, dims in self._atoms_along.items()
        }

    def check_zeros(self, model: nn.Module, zeros: Callable[[Layout], Layout]) -> None:
        """Raise `ValueError` if `zeros`, in a layout, do not take channels out of `model`."""
        kept = self.graph.everything()
        for group in self.graph.groups:
            kept[group.atoms[::2]] = False
        kept = self.graph.traced.filled(kept)
        where = self.layout(kept)
        check_zeros(replace(self.graph, model=model, example=self._example), kept, where, zeros(where))

    def certify(self, model: nn.Module, kept: AtomMask) -> None:
        """Raise `ValueError` unless `model`, at full size, is the same network with the atoms `kept` alone.

        The model is traced anew, with its current values.
        """
        graph = self.graph.on(model, self._example)
        same = np.array_equal(graph.traced.atoms.atom_of, self.graph.traced.atoms.atom_of)
        failure = graph.certify(kept) if same else None
        if failure is not None or not same:
            reason = "its channel dependencies differ" if failure is None else failure.reason
            raise ValueError(
                "model: with the channels that the last event keeps it would not be the network that was "
                f"traced at the start: {reason}; nothing was changed, and the training can continue as it is"
            )

    def source(
        self, model: nn.Module, full: Mapping[str, Tensor], pieces: Mapping[str, Piece] = MappingProxyType({})
    ) -> FullWeights:
        """Return the values to decide on: `full` ("model/..."), and the unsliced tensors of `model`.

        Of a sharded model both are what this process holds, at full size the `pieces`.
        """
        values: Mapping[str, Tensor] = {
            name: full.get(f"model/{name}", tensor) for name, tensor in named_tensors(model).items()
        }
        in_parts = is_sharded(model)
        if in_parts:
            values = _Joined(values, pieces)
        device = next(model.parameters()).device
        modules = named_modules(model)

        def kernel(producer: Producer) -> Tensor:
            computed = self._computed.get(producer.name)
            if computed is None:
                weight = values[producer.weight]
                if is_turned(modules[producer.name]):
                    weight = weight.T
            else:
                module = named_modules(model)[computed]
                inside = {name: values[f"{computed}.{name}"] for name in named_tensors(module)}
                weight = functional_call(module, inside, ())
            return output_first(weight.detach().to(device), producer.transposed, producer.groups)

        return FullWeights(values, kernel, self._inputs, in_parts)


class _Joined(Mapping[str, Tensor]):
    """Tensors of which every process has a part, each joined when it is read: a collective call."""

    def __init__(self, parts: Mapping[str, Tensor], pieces: Mapping[str, Piece]) -> None:
        self._parts, self._pieces = parts, pieces

    def __getitem__(self, name: str) -> Tensor:
        part = self._parts[name]
        return whole(part) if is_part(part) else self._pieces[name].joined(part)

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _light(graph: ChannelGraph) -> ChannelGraph:
    """Return the graph without full-size weights and trace records, which training does not need."""
    groups = tuple(
        replace(group, producers=tuple(replace(p, kernel=p.kernel.to("meta")) for p in group.producers))
        for group in graph.groups
    )
    return replace(graph, example=((), {}), groups=groups, traced=replace(graph.traced, steps=[]))


def _computed(graph: ChannelGraph, producers: list[Producer]) -> dict[str, str]:
    """Return {convolution: the module that computes its weight} where that is no parameter itself."""
    tensors = named_tensors(graph.model)
    modules = named_modules(graph.model)
    found = {}
    for producer in producers:
        attention = isinstance(modules[producer.name], nn.MultiheadAttention)
        if not attention and f"{producer.name}.weight" not in tensors:
            name = f"{producer.name}.parametrizations.weight"
            if name not in modules:
                raise ValueError(
                    f"model: the weight of {producer.name} is neither a parameter of its own nor made by "
                    "torch.nn.utils.parametrizations; use these"
                )
            found[producer.name] = name
    return found


def _inputs(graph: ChannelGraph, producer: Producer) -> Ints:
    """Return the atom [I] of each input channel of a layer, -1 where it is always present."""
    channels = producer.kernel.shape[1]
    if producer.transposed and producer.groups > 1:  # every group has input channels of its own
        return np.full(channels, -1)
    layer = named_modules(graph.model)[producer.name]
    dim = 0 if producer.transposed or is_turned(layer) else 1
    linear = is_linear(layer) or isinstance(layer, nn.MultiheadAttention)
    for name, tensor in named_tensors(graph.model).items():
        ids = graph.traced.labels.get((name, dim))
        if name.startswith(f"{producer.name}.") and tensor.dim() > (1 if linear else 2) and ids is not None:
            return graph.traced.atoms.atom_of[ids] if ids.size == channels else np.full(channels, -1)
    return np.full(channels, -1)
