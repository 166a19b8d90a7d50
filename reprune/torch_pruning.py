"""Provide REPrune's criterion for Torch-Pruning (`pip install "reprune[torch-pruning]"`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

try:
    from torch_pruning.pruner.importance import Importance
except ImportError as error:
    raise ImportError('reprune.torch_pruning needs it: pip install "reprune[torch-pruning]"') from error

from .clustering.backends import resolve
from .clustering.problem import LayerProblem
from .clustering.selection import select_layers
from .graph import output_first
from .layer_problems import tables_of
from .targets import require_choice

__all__ = ["REPruneImportance"]

Scores = npt.NDArray[np.float64]
Group = Any


class REPruneImportance(Importance):  # type: ignore[misc]
    """Scores the channels of Torch-Pruning's groups.

    An example of its use::

        importance = REPruneImportance()
        pruner = torch_pruning.pruner.BasePruner(model, images, importance, pruning_ratio=0.5)
        importance.attach(pruner)
        pruner.step()

    The pruner decides how many channels a group keeps, and REPrune's clusters depend on that number, so the
    importance has to know its pruner. Scores are in (0, 1], all different within what the pruner ranks
    together, and those of the channels that REPrune keeps are above all others. Kept channels are ordered as
    they were picked, the others by their L2 norms.

    With `global_pruning=True` the scores of all groups together are ranks of their BatchNorm scales, in
    each group given to the channels by their order, so the pruner finds the counts of Eq. 8-9; each group
    keeps at least one. `pruning_ratio_dict`, `round_to`, several steps and channel groups are followed.

    Args:
        seed, ties: how ties between filters are broken, see :func:`reprune.max_coverage`; a group has the
            name of its first layer in the model.
        backend: the backend that runs the clustering, see :mod:`reprune.clustering.backends`.

    Raises `ValueError` when called: without a pruner; for groups that it does not prune (attention heads,
    isomorphic scopes); with global pruning, for a group without BatchNorm or with all scales equal; for
    weights that are NaN or infinite.
    """

    def __init__(self, *, seed: int = 0, ties: str = "random", backend: str = "auto") -> None:
        require_choice("ties", ties, ("random", "norm"))
        self._seed, self._ties, self._backend = seed, ties, backend
        self._pruner: Any = None

    def attach(self, pruner: Any) -> None:
        """Attach to `pruner`, a pruner of Torch-Pruning that has made no step yet."""
        if getattr(pruner, "importance", None) is not self:
            raise ValueError("pruner: expected one that was made with this importance")
        if pruner.isomorphic:
            raise ValueError("pruner: isomorphic=True is not supported; use global_pruning=True alone")
        self._pruner = pruner
        self._full = {scope: sum(s.size for s in members) for scope, members in self._scopes().items()}
        self._step = -1
        self._ranks: dict[nn.Module, Scores] = {}

    @torch.no_grad()
    def __call__(self, group: Group) -> Tensor | None:
        """Return the scores, float32 [channels of the group's first layer], on the CPU.

        It is None for a group without weights.
        """
        if self._pruner is None:
            raise ValueError("importance: call attach(pruner) before the pruner's first step")
        if self._pruner.current_step != self._step:
            self._ranks, self._keep = self._counted()
            self._step = self._pruner.current_step
        root = group[0].dep.target.module
        if root not in self._ranks:
            raise ValueError(
                f"group: {self._name(root)} is none of the channel groups of the attached pruner (attention "
                "heads are not supported)"
            )
        order = self._order(group, self._keep[root])
        if order is None:
            return None
        scores = np.empty(order.size)
        scores[order] = np.sort(self._ranks[root])[::-1]
        return torch.from_numpy(np.tile(scores, self._pruner._get_channel_groups(group))).float()

    def _order(self, group: Group, keep: int) -> npt.NDArray[np.int64] | None:
        """Return positions [A] in the group, best first."""
        makers = list(self._makers(group))
        if not makers:
            return None
        name = next(
            n for n, module in self._pruner.model.named_modules() if any(module is m for m, _ in makers)
        )
        kernels = [(_kernel(layer), rows) for layer, rows in makers]
        chosen = resolve(self._backend, kernels[0][0].device.type)
        for kernel, _ in kernels:
            if not bool(torch.isfinite(kernel).all()):
                raise ValueError(f"model: a weight of the group of {name} has NaN or infinite values")
        tables = tuple(t for kernel, rows in kernels for t in tables_of(kernel, rows, chosen))
        problem = LayerProblem(name, tables, keep)
        (selection,) = select_layers([problem], seed=self._seed, ties=self._ties, backend=chosen)
        picked = np.asarray(selection.order)
        norms = np.zeros(tables[0].shape[1])
        for table in tables:  # [I, A, d]
            norms += torch.as_tensor(table).double().square().sum((0, 2)).cpu().numpy()
        rest = np.setdiff1d(np.arange(norms.size), picked)
        return np.concatenate([picked, rest[np.argsort(-norms[rest], kind="stable")]])

    def _makers(self, group: Group) -> Iterator[tuple[nn.Module, npt.NDArray[np.int64]]]:
        """Yield each layer that produces the group's channels, with its channels [A, w] per position.

        The channel is -1 where the layer has none.
        """
        width = self._pruner._get_channel_groups(group)
        size = len(group[0].idxs) // width
        for item in group:
            layer = item.dep.target.module
            if not self._pruner.DG.is_out_channel_pruning_fn(item.dep.handler):
                continue
            if not isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
                continue
            at: list[list[int]] = [[] for _ in range(size)]
            for channel, root in zip(item.idxs, item.root_idxs, strict=True):
                at[root % size].append(channel)
            rows = np.full((size, max(map(len, at))), -1)
            for position, channels in enumerate(at):
                rows[position, : len(channels)] = channels
            yield layer, rows

    def _counted(self) -> tuple[dict[nn.Module, Scores], dict[nn.Module, int]]:
        """Return {first layer: channel scores [A]} and {first layer: channels to keep} of the groups."""
        ranks: dict[nn.Module, Scores] = {}
        keep: dict[nn.Module, int] = {}
        for scope, members in self._scopes().items():
            total = sum(member.size for member in members)
            gone = max(0, total - int(self._full[scope] * (1 - members[0].ratio)))
            values = [np.zeros(members[0].size)]
            if len(members) > 1:
                values = [self._gammas(member) for member in members]
                if gone and np.ptp(np.concatenate(values)) == 0:
                    raise ValueError("model: all BatchNorm scales are equal; use global_pruning=False")
            best = [np.arange(v.size) == np.argmax(v) for v in values]  # one stays, whatever its scale
            rank = np.empty(total)
            rank[np.lexsort([np.concatenate(values), np.concatenate(best)])] = np.arange(total)
            ends = np.cumsum([member.size for member in members])
            for member, mine in zip(members, np.split(rank, ends[:-1]), strict=True):
                stay = int((mine >= gone).sum())
                if self._pruner.round_to and stay < member.size:
                    stay = self._rounded(member, stay)
                ranks[member.root], keep[member.root] = (mine + 1) / total, max(stay, 1)
        return ranks, keep

    def _rounded(self, member: Member, stay: int) -> int:
        """Round as the pruner does: over all channels of the layer, even if they come in groups."""
        channels = int(self._pruner.DG.get_out_channels(member.root))
        left = channels - (member.size - stay)
        left -= left % int(self._pruner.round_to)
        return member.size - (channels - left)

    def _gammas(self, member: Member) -> Scores:
        """Return |gamma| [A] at each position, averaged over the BatchNorms behind it (Eq. 8)."""
        total, count = np.zeros(member.size), np.zeros(member.size)
        for item in member.group:
            layer = item.dep.target.module
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine:
                gamma = layer.weight.detach().abs().double().cpu().numpy()
                where = np.asarray(item.root_idxs) % member.size
                np.add.at(total, where, gamma[item.idxs])
                np.add.at(count, where, 1)
        if not count.all():
            raise ValueError(
                f"model: {self._name(member.root)} has no BatchNorm behind it, and global pruning ranks by "
                "their scales; use global_pruning=False or put it in ignored_layers"
            )
        return total / count

    def _scopes(self) -> dict[Any, list[Member]]:
        """Return the groups that the pruner ranks together."""
        pruner = self._pruner
        scopes: dict[Any, list[Member]] = {}
        for group in pruner.DG.get_all_groups(
            ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types
        ):
            if not pruner._check_pruning_ratio(group):
                continue
            root = group[0].dep.target.module
            scope = None if pruner.global_pruning else root
            ratio = pruner.per_step_pruning_ratio[pruner.current_step]
            own = self._own_scope(group)
            if own is not None:
                scope, ratio = own
            size = len(group[0].idxs) // pruner._get_channel_groups(group)
            scopes.setdefault(scope, []).append(Member(root, group, size, ratio))
        return scopes

    def _own_scope(self, group: Group) -> tuple[Any, float] | None:
        """Return the scope that pruning_ratio_dict makes for the group, and its ratio."""
        pruner = self._pruner
        for item in group:
            dep = item.dep
            for module, function in ((dep.source.module, dep.trigger), (dep.target.module, dep.handler)):
                if module in pruner._layer_to_scope and pruner.DG.is_out_channel_pruning_fn(function):
                    return pruner._layer_to_scope[module][0], pruner.get_target_pruning_ratio(module)
        return None

    def _name(self, module: nn.Module) -> str:
        return str(self._pruner.DG._module2name[module])


def _kernel(layer: nn.Module) -> Tensor:
    """Return the kernels of a layer, [O, I, ...]."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.modules.conv._ConvNd):
        return output_first(weight, layer.transposed, layer.groups)
    return weight[:, :, None]


@dataclass(frozen=True)
class Member:
    """A group in a scope."""

    root: nn.Module
    """The first layer of the group."""
    group: Group
    size: int
    """Number of positions: channels, or those of each channel group."""
    ratio: float
    """Fraction of the scope to remove."""
