"""Convert the state of a pruned module to and from full size, with zeros for removed channels.

A full-size module that loads such a state computes the same, and a smaller one takes the sizes that the zeros
imply. So checkpoints fit both a freshly built and a pruned module, whenever they were written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from ..modules.slicing import (
    Positions,
    in_format_of,
    named_tensors,
    replace_tensors,
    replacement,
    slice_tensor,
    write,
)
from ..modules.wrappers import plain_names
from ..optimizers import Keeper
from ..plan import forget_plan, plan_of, remember_plan
from .live import Live
from .zeros import missing


class FullSize:
    """Makes `state_dict()` of modules full-size, and `load_state_dict()` accept it.

    The modules are the model of `live`, its copies and copies of these; `live` is at full size now. States
    that are not at full size are loaded as usual, and a state of the module's own tensors (`keep_vars=True`)
    is left as it is.
    """

    def __init__(self, live: Live) -> None:
        self._live = live
        tensors, saved = named_tensors(live.model), live.model.state_dict()
        plain = plain_names(live.model)
        here = {plain(name) for name in saved}
        self._unsaved = {name: tensors[name].detach().clone() for name in live.layout() if name not in here}
        """Sliceable tensors that are in no state: buffers that are not persistent."""
        self._spared = live.structure.spared(live.model)
        self.grow = False
        """Whether a module that loads becomes full-size; its optimizer, which loads too, does then."""

    def attach(self, module: nn.Module) -> None:
        """Install the hooks on `module` in place of any other `FullSize`."""
        for hooks in (module._state_dict_hooks, module._load_state_dict_pre_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(getattr(hook, "hook", hook), FullSize):
                    del hooks[key]
        module.register_state_dict_post_hook(self)  # type: ignore[no-untyped-call]  # PyTorch's
        module.register_load_state_dict_pre_hook(self)  # type: ignore[no-untyped-call]

    def __call__(
        self, module: nn.Module, state: MutableMapping[str, Any], prefix: str, metadata: Any, *loading: Any
    ) -> None:
        """Run the hook: with `loading` that of loading, else that of saving."""
        plain = plain_names(module)
        raw = {plain(name.removeprefix(prefix)): name for name in state if name.startswith(prefix)}
        (self._take if loading else self._give)(module, state, raw)

    def __deepcopy__(self, memo: dict[int, Any]) -> FullSize:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as a method of PyTorch that does nothing: such a module needs no reprune."""
        return getattr, (nn.Identity(), "__init__")

    def _give(self, module: nn.Module, state: MutableMapping[str, Any], raw: Mapping[str, str]) -> None:
        own = {id(tensor) for tensor in named_tensors(module).values()}
        sizes = self._live.tracked.sizes
        for name, where in self._layout(module).items():
            value = state.get(raw.get(name, ""))
            if isinstance(value, Tensor) and id(value) not in own:
                state[raw[name]] = scattered(value, sizes[name], where, self._spared.get(name, set()))

    def _take(self, module: nn.Module, state: MutableMapping[str, Any], raw: Mapping[str, str]) -> None:
        live = self._live
        structure, sizes = live.structure, live.tracked.sizes
        whole = structure.layout(live.graph.everything())
        found = {name: state[raw[name]] for name in whole if name in raw}
        if any(not isinstance(t, Tensor) or tuple(t.shape) != sizes[name] for name, t in found.items()):
            return  # of another size: as it is, or for PyTorch to refuse
        alive = live.graph.everything() if self.grow else structure.alive_in(found, self._spared)
        if not live.mode.small:
            target = whole
        else:
            target = structure.layout(alive)
            self._resize(module, target, alive)
        if module is live.model:
            live.set_alive(alive)
        for name in found:
            state[raw[name]] = slice_tensor(found[name], target[name])

    def _layout(self, module: nn.Module) -> dict[str, dict[int, Any]]:
        """Return {tensor of `module` that was sliced since the pruner began: {dimension: positions}}."""
        plan, first = plan_of(module), self._live.first
        layout: dict[str, dict[int, Any]] = {}
        for name, dims in plan.slices.items() if plan is not None else ():
            before = {} if first is None else first.slices.get(name, {})
            layout[name] = {
                dim: np.searchsorted(before[dim], kept) if dim in before else kept
                for dim, kept in dims.items()
            }
        return layout

    def _resize(self, module: nn.Module, target: Mapping[str, Positions], alive: Any) -> None:
        """Resize the tensors of `module`; their values are loaded afterwards."""
        tensors, sizes = named_tensors(module), self._live.tracked.sizes
        whole = self._live.layout(self._live.graph.everything())
        now, new = self._layout(module), {}
        for name, where in target.items():
            old, before = tensors[name], {**whole[name], **now.get(name, {})}
            if all(np.array_equal(kept, before[dim]) for dim, kept in where.items()):
                continue
            full = self._unsaved.get(name)
            value = old.new_zeros(sizes[name]) if full is None else full.to(old.device)
            new[old] = replacement(old, in_format_of(old, slice_tensor(value, where)), None)
        plan = self._live.plan_with(alive)
        replace_tensors(module, new, plan.widths)
        first = self._live.first
        forget_plan(module)
        if not alive.all():
            remember_plan(module, plan, first)
        elif first is not None:
            remember_plan(module, first, None)


def scattered(part: Tensor, size: tuple[int, ...], where: Positions, spared: Collection[int] = ()) -> Tensor:
    """Return a tensor of `size` with `part` at the positions `where` and zeros elsewhere.

    Along the dimensions `spared`, where zeros would give NaN, it is filled with ones: other tensors remove
    these channels.
    """
    full = in_format_of(part, part.new_zeros(size))
    for dim, gone in missing(size, {dim: kept for dim, kept in where.items() if dim in spared}):
        full.index_fill_(dim, torch.from_numpy(gone).to(full.device), 1)
    for dim, gone in missing(size, {dim: kept for dim, kept in where.items() if dim not in spared}):
        full.index_fill_(dim, torch.from_numpy(gone).to(full.device), 0)
    write(full, where, part)
    return full


def full_size_state(live: Live, optimizer_state: dict[str, Any]) -> dict[str, Any]:
    """Return the optimizer's `state_dict()` at full size."""
    layout = live.layout()
    sizes = live.tracked.sizes
    wide = {
        id(entry.value): (entry.value, sizes[entry.name], layout[entry.name])
        for entry in Keeper(live.tracked.optimizer).entries(live.tracked.parameters(layout))
        if tuple(entry.value.shape) != sizes[entry.name]
    }
    widened: dict[str, Any] = tree_map_only(
        Tensor, lambda t: scattered(*wide[id(t)]) if id(t) in wide else t, optimizer_state
    )
    return widened
