"""Compute the cost of a network without some of its channels: FLOPs, parameters and bytes."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from ..aliases import Ints
from ..modules.slicing import named_tensors
from ..modules.wrappers import named_parameters
from .labels import Atoms, fixed
from .propagation import Key


@dataclass(frozen=True)
class Cost:
    """A sum of terms, each proportional to the lengths of some dimensions."""

    terms: tuple[tuple[int, tuple[Ints, ...]], ...]
    """(amount in the full network, the atoms along each dimension that it scales with; -1 where fixed)."""

    @property
    def full(self) -> int:
        return sum(amount for amount, _ in self.terms)

    def at(self, kept: npt.NDArray[np.float64]) -> float:
        """Return the cost of `kept` [atoms]: 1 or 0, or the fraction of a group that will be kept."""
        places, starts, sizes, terms = self._flat
        share = np.append(kept, 1.0)[places]  # -1 (fixed) finds the last
        lengths = (np.add.reduceat(share, starts) / sizes).tolist() if starts.size else []
        return float(sum(amount * math.prod(lengths[k] for k in dims) for amount, dims in terms))

    @functools.cached_property
    def _flat(self) -> tuple[Ints, Ints, Ints, list[tuple[int, list[int]]]]:
        """The distinct dimensions, concatenated; their starts and sizes; the terms in their numbers."""
        number: dict[int, int] = {}
        distinct: list[Ints] = []
        terms = []
        for amount, dims in self.terms:
            for dim in dims:
                if id(dim) not in number:
                    number[id(dim)] = len(distinct)
                    distinct.append(dim)
            terms.append((amount, [number[id(dim)] for dim in dims]))
        sizes = np.array([dim.size for dim in distinct])
        starts = np.cumsum(sizes) - sizes
        return np.concatenate([np.zeros(0, np.int64), *distinct]).astype(np.int64), starts, sizes, terms


def cost_of(terms: list[tuple[int, list[Ints]]], atoms: Atoms) -> Cost:
    """Return the cost, in atoms, of what a trace counted."""
    atom_of = np.append(atoms.atom_of, fixed(1))
    distinct: dict[
        bytes, Ints
    ] = {}  # equal dimensions are one object, and terms of equal dimensions one term
    total: dict[tuple[bytes, ...], int] = {}
    for amount, dims in terms:
        atoms_of_dims = [atom_of[labels] for labels in dims]
        keys = tuple(atoms_along.tobytes() for atoms_along in atoms_of_dims)
        distinct.update(zip(keys, atoms_of_dims, strict=True))
        total[keys] = total.get(keys, 0) + amount
    return Cost(tuple((amount, tuple(distinct[key] for key in keys)) for keys, amount in total.items()))


def parameter_cost(model: nn.Module, labels: Mapping[Key, Ints], atoms: Atoms) -> Cost:
    """Return the number of parameters as a cost in atoms."""
    terms = [
        (p.numel(), [labels[name, dim] for dim in range(p.dim()) if (name, dim) in labels])
        for name, p in named_parameters(model).items()
    ]
    return cost_of(terms, atoms)


def size_cost(model: nn.Module, labels: Mapping[Key, Ints], atoms: Atoms) -> Cost:
    """Return the bytes of the model's state, as its file holds it, as a cost in atoms.

    Tied tensors count once.
    """
    stored = {id(t) for t in model.state_dict(keep_vars=True).values() if isinstance(t, Tensor)}
    terms = [
        (t.nbytes, [labels[name, dim] for dim in range(t.dim()) if (name, dim) in labels])
        for name, t in named_tensors(model).items()
        if id(t) in stored
    ]
    return cost_of(terms, atoms)
