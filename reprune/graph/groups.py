"""Find groups of channels: what one decision about a layer removes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..aliases import Ints
from ..modules.linear import is_linear
from ..modules.wrappers import named_modules, named_parameters
from .labels import FIXED, Atoms, components, fixed
from .propagation import Key
from .state import Convolution


@dataclass(frozen=True)
class Producer:
    """A convolution, Linear layer or torch.nn.MultiheadAttention whose output channels are a group's.

    Those of an attention are the rows of its `in_proj_weight`, or of the query's or value's projection.
    """

    name: str
    """The module's name."""
    weight: str
    """The name of its weight; of one that is computed, that of the first tensor of these."""
    kernel: Tensor
    """Effective kernels, output channels first: [O, I/groups, *sides]; of a Linear layer [O, I, 1]."""
    rows: Ints
    """[A, w] output channels of each atom; w > 1 for grouped convolutions and chunks. Where atoms have
    different numbers of channels here, the first of each; -1 where an atom has none."""
    transposed: bool = False
    groups: int = 1


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that are selected together, as atoms."""

    name: str
    """The first producing layer."""
    producers: tuple[Producer, ...]
    atoms: Ints
    """[A] the removable atoms, in the order of the first producer's channels."""
    gammas: tuple[tuple[str, Ints, Ints], ...]
    """The weights of the BatchNorms behind it: (parameter, positions, atom of the group at each position)."""
    added: bool
    """Whether channels of two layers meet in an addition in it."""
    heads: bool = False
    """Whether its atoms are heads of an attention."""


LAYERS = ("conv", "linear", "all")
"""Which layers may lose output channels: convolutions, Linear layers, or both."""


def find_groups(
    model: nn.Module,
    convolutions: Mapping[int, Convolution],
    labels: Mapping[Key, Ints],
    atoms: Atoms,
    layers: str = "conv",
    heads: frozenset[int] = frozenset(),
) -> tuple[list[ChannelGroup], dict[str, str], dict[str, Ints]]:
    """Return groups in run order, {layer: why it cannot be pruned} and {layer: each channel's atom [O]}.

    `convolutions` are those that ran, by the first label of their kernels. `layers`: one of `LAYERS`. With
    "conv" a group is one that a convolution produces, and Linear layers that share it follow; with "linear"
    it is one that only Linear layers produce. `heads` are the atoms that are heads of an attention.
    """
    called, weights = _called(convolutions, labels)
    wanted = {
        name: module
        for name, module in named_modules(model).items()
        if (layers != "linear" and isinstance(module, nn.modules.conv._ConvNd))
        or (layers != "conv" and (is_linear(module) or isinstance(module, nn.MultiheadAttention)))
    }
    found = {name: convolution for name, convolution in called.items() if name in wanted}
    prunable = np.ones(atoms.count, dtype=bool)
    prunable[list(atoms.pinned)] = False
    skipped: dict[str, str] = {}
    free: dict[str, Ints] = {}  # {layer: the atoms of its channels that may leave}
    others = _convolved(model, called, atoms) if layers == "linear" else np.zeros(atoms.count, dtype=bool)
    for name in wanted:
        if name not in found:
            skipped[name] = _why_not_followed(model, wanted[name])
            continue
        channels = atoms.atom_of[found[name].channels]
        if others[channels].any():
            skipped[name] = "shares its channels with a convolution; layers='all' prunes them"
            continue
        left = _in_order(channels[prunable[channels]])
        if left.size < 2:
            skipped[name] = _why(atoms, channels)
        else:
            free[name] = left
    names = [name for name in found if name in free]
    shared = _sharing(names, free, atoms.count)
    together = [
        free[members[0]] if len(members) == 1 else _in_order(np.concatenate([free[name] for name in members]))
        for members in shared
    ]
    place = fixed(atoms.count)  # of each atom in its group
    for group_atoms in together:
        place[group_atoms] = np.arange(group_atoms.size)
    groups = []
    for members, group_atoms, gammas in zip(
        shared, together, _gammas(_scales(model, labels, atoms), together, place), strict=True
    ):
        producers = tuple(
            _producer(name, weights[name], found[name], atoms, place, group_atoms.size) for name in members
        )
        ids = group_atoms.tolist()
        added, attends = (not some.isdisjoint(ids) for some in (atoms.added, heads))
        groups.append(ChannelGroup(members[0], producers, group_atoms, gammas, added, attends))
    return groups, skipped, {name: atoms.atom_of[convolution.channels] for name, convolution in found.items()}


def _called(
    convolutions: Mapping[int, Convolution], labels: Mapping[Key, Ints]
) -> tuple[dict[str, Convolution], dict[str, str]]:
    """Return {module: convolution or Linear layer} in the order of the calls, and {module: its weight}."""
    owner = {int(ids[0]): name for (name, _), ids in labels.items()}
    found: dict[str, Convolution] = {}
    weights: dict[str, str] = {}
    for first, convolution in convolutions.items():
        if first in owner:  # else its weight is a part of a tensor
            module = _module_of(owner[first])
            found[module], weights[module] = convolution, owner[first]
    return found, weights


def _module_of(tensor: str) -> str:
    """Return the layer of a tensor: `conv` for `conv.parametrizations.weight.original0`."""
    parts = tensor.split(".")
    end = parts.index("parametrizations") if "parametrizations" in parts else len(parts) - 1
    return ".".join(parts[:end])


def _convolved(model: nn.Module, called: Mapping[str, Convolution], atoms: Atoms) -> npt.NDArray[np.bool_]:
    """Return which atoms convolutions produce, [atoms]."""
    mask = np.zeros(atoms.count, dtype=bool)
    for name, module in named_modules(model).items():
        if isinstance(module, nn.modules.conv._ConvNd) and name in called:
            mask[atoms.atom_of[called[name].channels]] = True
    return mask


def _why_not_followed(model: nn.Module, module: nn.Module) -> str:
    """Return why nothing is known of the rows of a layer."""
    owner = next(
        (name for name, one in named_parameters(model).items() if one is module._parameters.get("weight")), ""
    )
    layer = _module_of(owner) if owner else None
    if layer is not None and named_modules(model).get(layer) is not module:
        return f"has the weight of {layer}, and keeps its channels as that does"
    return (
        "did not run on the example input, or its weight has no rows that could be followed (a "
        "single one, or computed by operations without a rule)"
    )


def _why(atoms: Atoms, channels: Ints) -> str:
    reasons = [atoms.pinned[atom] for atom in np.unique(channels).tolist() if atom in atoms.pinned]
    return reasons[0] if reasons else "its channels are coupled into a single unit"


def _in_order(values: Ints) -> Ints:
    """Return the distinct values in the order of their first appearance."""
    distinct, first = np.unique(values, return_index=True)
    return distinct[np.argsort(first)]


def _sharing(names: list[str], free: Mapping[str, Ints], count: int) -> list[list[str]]:
    """Return sets of convolutions that share one of the `count` atoms and are selected as one."""
    edges = [(np.full(free[name].size, count + k), free[name]) for k, name in enumerate(names)]
    members: dict[int, list[str]] = {}
    for name, group in zip(names, components(edges, count + len(names))[count:].tolist(), strict=True):
        members.setdefault(group, []).append(name)
    return list(members.values())


def _producer(
    name: str, weight: str, convolution: Convolution, atoms: Atoms, place: Ints, size: int
) -> Producer:
    """Return the layer as a producer of a group of `size` atoms; `place` [atoms] of each in its group."""
    kernel = output_first(convolution.kernel.detach(), convolution.transposed, convolution.groups)
    where = place[atoms.atom_of[convolution.channels]]  # which atom of the group each channel is
    if np.array_equal(where, plain := np.arange(size)):
        return Producer(name, weight, kernel, plain[:, None], convolution.transposed, convolution.groups)
    rows = np.argsort(where, kind="stable")[np.count_nonzero(where == FIXED) :]
    sizes = np.bincount(where[rows], minlength=size)
    first = np.cumsum(sizes) - sizes
    table = np.full((size, sizes[sizes > 0].min()), FIXED)
    table[sizes > 0] = rows[first[sizes > 0, None] + np.arange(table.shape[1])]
    return Producer(name, weight, kernel, table, convolution.transposed, convolution.groups)


def output_first(kernel: Tensor, transposed: bool, groups: int) -> Tensor:
    """Return kernels with output channels first: [O, I/groups, ...]; of a Linear layer [O, I, 1]."""
    if kernel.dim() == 2:
        return kernel.unsqueeze(2)
    if not transposed:
        return kernel
    parts = kernel.reshape(groups, -1, *kernel.shape[1:])  # [I, O/groups, ...], group by group
    return parts.transpose(1, 2).flatten(0, 1)


def _scales(model: nn.Module, labels: Mapping[Key, Ints], atoms: Atoms) -> dict[str, Ints]:
    """Return {weight of a BatchNorm: the atom of each channel}."""
    weights = [
        f"{name}.weight" if name else "weight"
        for name, module in named_modules(model).items()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    return {weight: atoms.atom_of[labels[weight, 0]] for weight in weights if (weight, 0) in labels}


def _gammas(
    scales: Mapping[str, Ints], groups: Sequence[Ints], place: Ints
) -> list[tuple[tuple[str, Ints, Ints], ...]]:
    """Return the BatchNorms behind each of `groups` of atoms; `place` [atoms] of each in its group."""
    group_of = fixed(place.size)
    for k, group in enumerate(groups):
        group_of[group] = k
    found: list[list[tuple[str, Ints, Ints]]] = [[] for _ in groups]
    for weight, ids in scales.items():
        groups_here = group_of[ids]
        for k in np.unique(groups_here[groups_here != FIXED]).tolist():
            positions = np.flatnonzero(groups_here == k)
            found[k].append((weight, positions, place[ids[positions]]))
    return [tuple(gammas) for gammas in found]


def has_gamma(group: ChannelGroup) -> bool:
    """Return whether every atom has a BatchNorm behind it."""
    behind = np.zeros(group.atoms.size, dtype=bool)
    for _, _, where in group.gammas:
        behind[where] = True
    return bool(behind.all())


def mean_gamma(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> npt.NDArray[np.float64] | None:
    """Return |gamma| [A] averaged over each atom's BatchNorms (Eq. 8); None where an atom has none."""
    total, count = np.zeros(group.atoms.size), np.zeros(group.atoms.size)
    for name, positions, where in group.gammas:
        values = tensors[name].detach().abs().to("cpu", torch.float64).numpy()
        np.add.at(total, where, values[positions])
        np.add.at(count, where, 1)
    return total / count if count.all() else None
