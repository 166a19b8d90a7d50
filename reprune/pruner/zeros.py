"""Decide where zeros take dropped channels out of the network, and check that they do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import ParametrizationList

from ..aliases import Ints
from ..graph import AtomMask, ChannelGraph, Guard, preserving
from ..modules.slicing import Positions, copy_with, named_tensors, replacement, slice_tensor, sliced_copy
from ..modules.wrappers import eagerly, named_modules
from ..optimizers.walk import walk
from .store import Layout

AtomsAlong = Mapping[str, Mapping[int, Ints]]
"""{tensor: {dimension: the atom of each position}}."""


def missing(shape: tuple[int, ...], where: Positions) -> list[tuple[int, Ints]]:
    """Return [(dimension, absent positions)] for the dimensions that have some."""
    found = [(dim, np.setdiff1d(np.arange(shape[dim]), kept)) for dim, kept in where.items()]
    return [(dim, gone) for dim, gone in found if gone.size]


def zeroed(tensor: Tensor, where: Positions) -> Tensor:
    """Return `tensor` with zeros at the absent positions."""
    if tensor.is_sparse:
        return zeroed(tensor.to_dense(), where).to_sparse(tensor.sparse_dim())
    out = tensor.detach().clone()
    for dim, gone in missing(out.shape, where):
        out.index_fill_(dim, torch.from_numpy(gone).to(out.device), 0)
    return out


def spared_dims(model: nn.Module, atoms_along: AtomsAlong) -> dict[str, set[int]]:
    """Return {tensor: dimensions not to be zeroed} for parametrized weights.

    With weight_norm a weight is `g v / |v|`: zeros in g take a channel out, in v they make NaN. So zeros
    in all tensors of a parametrization are tried, for the channels of each of its sides, and where they
    give other weights than slices do, zeros in all tensors but one.
    """
    spared: dict[str, set[int]] = {}
    tensors = named_tensors(model)
    for path, module in named_modules(model).items():
        if not isinstance(module, ParametrizationList):
            continue
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{path}.")}
        for side in _sides({name: atoms_along[name] for name in own if name in atoms_along}):
            for name, dim in _spared(module, path, own, side):
                spared.setdefault(name, set()).add(dim)
    return spared


Side = dict[tuple[str, int], Ints]
"""{(tensor, dimension): atoms} with the same atoms everywhere."""


def _sides(atoms_along: AtomsAlong) -> list[Side]:
    sides: dict[frozenset[int], Side] = {}
    for name, dims in atoms_along.items():
        for dim, atoms in dims.items():
            sides.setdefault(frozenset(atoms.tolist()), {})[name, dim] = atoms
    return list(sides.values())


def _spared(module: nn.Module, path: str, own: Mapping[str, Tensor], side: Side) -> list[tuple[str, int]]:
    """Return what of `side` keeps its values.

    It is empty if zeros everywhere are right, or if nothing helps.
    """
    dropped = np.unique(next(iter(side.values())))[::2]
    where: dict[str, dict[int, Ints]] = {}
    for (name, dim), atoms in side.items():
        where.setdefault(name, {})[dim] = np.flatnonzero(~np.isin(atoms, dropped))

    def weight(values: Mapping[str, Tensor]) -> Tensor:
        inside = {name.removeprefix(f"{path}."): value for name, value in values.items()}
        with torch.no_grad():
            return torch.as_tensor(functional_call(module, inside, ())).flatten().double()

    small = weight({name: slice_tensor(tensor, where.get(name, {})).clone() for name, tensor in own.items()})
    for spare in (None, *where):
        zeros = {name: kept for name, kept in where.items() if name != spare}
        large = weight({name: zeroed(tensor, zeros.get(name, {})) for name, tensor in own.items()})
        if _close(*(torch.sort(values[values != 0])[0] for values in (small, large))):
            return [place for place in side if place[0] == spare]
    return []


def check_zeros(graph: ChannelGraph, kept: AtomMask, where: Layout, zeros: Layout) -> None:
    """Raise `ValueError` unless the model with `zeros` equals the network of the atoms `kept`.

    Both run on the example. Outputs are not compared if they are not finite without zeros either, or random.
    """
    model, tensors = graph.model, named_tensors(graph.model)
    everything = graph.traced.widths(graph.everything())
    new = {name: replacement(t, zeroed(t, zeros[name])) for name, t in tensors.items() if name in zeros}
    small = sliced_copy(model, where, graph.traced.widths(kept))
    large = copy_with(model, new, everything)
    bad: list[str] = []
    for name, module in named_modules(large).items():
        module.register_forward_hook(lambda m, i, out, name=name: None if _finite(out) else bad.append(name))
    with preserving(model, graph.example) as preserved, Guard(preserved):
        expected = _outputs(small, graph.example, seed=0)
        got, again = (_outputs(large, graph.example, seed) for seed in (0, 1))
    if not _finite(expected):
        return
    alike = len(expected) == len(got) and all(map(_close, expected, got))
    random = not all(map(torch.equal, got, again))
    if bad or not (alike or random or graph.traced.data_dependent):
        what = f"{bad[0]} gives NaN or infinite values" if bad else "the model is not as it is without them"
        raise ValueError(
            f"mode: 'mask' sets dropped channels to zero, and with zeros {what}; use mode='shrink', or a "
            "model in which zeros take channels out (kernels that are computed need not be zero where their "
            "parameters are: those of W + 0.1 or softplus(W) are not)"
        )


def _outputs(model: nn.Module, example: Any, seed: int) -> list[Tensor]:
    """Return the floating-point outputs in evaluation mode."""
    args, kwargs = example
    torch.manual_seed(seed)
    with torch.no_grad(), eagerly():
        return _floats(model.eval()(*args, **kwargs))


def _floats(value: Any) -> list[Tensor]:
    found = [f.value for f in walk(value, "")]
    return [x for x in found if isinstance(x, Tensor) and x.is_floating_point()]


def _finite(value: Any) -> bool:
    return all(bool(x.isfinite().all()) for x in _floats(value))


def _close(a: Tensor, b: Tensor) -> bool:
    """Return whether the tensors are finite and equal up to rounding."""
    if a.shape != b.shape:
        return False
    scale = float(a.abs().max()) if a.numel() else 1.0
    tolerance = max(1e-3, 100 * torch.finfo(a.dtype).eps)
    return bool(((a - b).abs() <= tolerance * scale).all())
