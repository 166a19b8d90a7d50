"""Hold the training that is being pruned: model, optimizer, copies, and which channels are present."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from ..graph import AtomMask, ChannelGraph
from ..modules.sharded import is_sharded
from ..modules.sizes import set_widths
from ..modules.slicing import copy_with, named_tensors, replacement
from ..modules.twin import twin_of
from ..modules.wrappers import unwrap
from ..optimizers import Keeper
from ..plan import PruningPlan, remember_plan
from ..planner import plan_of_atoms
from ..targets import Settings, landing_notes
from .compiled import CompiledCode
from .finite import not_finite
from .history import History
from .mode import Mode
from .schedule import Schedule
from .store import Layout, Store
from .structure import Structure
from .tracked import Tracked


class Live:
    """What :class:`reprune.Pruner` works on, and what its state is saved from and loaded into.

    Its attributes are internal to this package.
    """

    def __init__(
        self,
        tracked: Tracked,
        structure: Structure,
        settings: Settings,
        schedule: Schedule,
        asked: str,
        mode: Mode,
        first: PruningPlan | None,
        compiled: CompiledCode,
    ) -> None:
        self.tracked, self.structure = tracked, structure
        self.settings, self.schedule = settings, schedule
        self.asked, self.mode = asked, mode
        """The mode that the user named, and the current one: mask mode ends with smaller tensors."""
        self.first = first
        """The plan that had made the model before, or None."""
        self.compiled = compiled
        self.alive: AtomMask = self.graph.everything()
        """[atoms] which are present."""
        self.coverage = {group.name: 1.0 for group in self.graph.groups}
        self.store = Store()
        self.hold: Callable[[], None] = _nothing
        """Called after every step of the optimizer."""
        self.unhook: Callable[[], None] = _nothing
        self.epoch = 0
        self.history = History()
        self.finished = False
        self.check()
        layout = self.layout()
        self.odd = {key: said for key, said in not_finite(tracked).items() if key[1] not in layout}
        """Tensors that were not finite at the start and are never sliced."""
        self.follow_optimizer()

    @property
    def graph(self) -> ChannelGraph:
        """The graph of the full model."""
        return self.structure.graph

    @property
    def model(self) -> nn.Module:
        """The module inside all wrappers."""
        return self.tracked.model

    def layout(self, alive: AtomMask | None = None) -> Layout:
        """Return {tensor: {dimension: positions present}} with the atoms `alive`, by default the current."""
        return self.structure.layout(self.alive if alive is None else alive)

    def record(self) -> dict[str, Any]:
        """Return all settings as a plan records them."""
        schedule = self.schedule
        times = {"interval": schedule.interval, "until": schedule.until, "regrow": schedule.regrow}
        return self.settings.to_dict() | times

    def plan(self) -> PruningPlan:
        """Return what the last event kept and regrew, as a plan for the full model."""
        plan = self.plan_with(self.alive)
        if not len(self.history) or self.history[-1].epoch < self.schedule.last:
            return plan  # channels come back until the last event
        return replace(plan, notes=(*plan.notes, *landing_notes(self.graph, self.settings, self.alive)))

    def plan_with(self, alive: AtomMask) -> PruningPlan:
        """Return the plan that keeps the atoms `alive` of the full model."""
        return plan_of_atoms(self.graph, alive, self.coverage, self.tracked.sizes, self.record())

    def check(self) -> None:
        """Raise `ValueError` if model or optimizer differ from what they should be now."""
        layout, sizes = self.layout(), self.tracked.sizes
        self.tracked.settle()
        self.tracked.check(
            {name: self.mode.shape(size, layout.get(name, {})) for name, size in sizes.items()}
        )
        self.tracked.check_references(layout)
        self.mode.check(self.tracked, layout)

    def follow_optimizer(self) -> None:
        """Call `hold` after every step of the optimizer, until `unhook` is called."""
        self.unhook = Keeper(self.tracked.optimizer).after_each_step(lambda: self.hold())

    def continue_with(self, optimizer: Any, copies: Sequence[nn.Module]) -> None:
        """Continue with another optimizer and other copies, made of the model as it is now."""
        self.unhook()
        self.tracked.replace(optimizer, [unwrap(one)[0] for one in copies])
        self.store.drop(lambda key: not key.startswith("model/"))
        self.check()
        if not self.finished:
            self.follow_optimizer()

    def absorb(self, every: bool | None = None, known: Collection[str] = ()) -> None:
        """Update the store with the current values, except for the keys in `known`.

        With `every`, it takes all state of the optimizer, whatever the mode.
        """
        layout, pieces = self.layout(), self.tracked.pieces
        take, present = self.store.absorb, self.mode.present
        states = self.tracked.states(layout, self.mode.every if every is None else every)
        for prefix, model in self.tracked.models():
            tensors = named_tensors(model)
            for name, where in layout.items():
                if (key := f"{prefix}/{name}") not in known:
                    take(key, *present(tensors[name], pieces[name], where))
        for entry in states:
            where = layout[entry.name]
            if entry.key not in known:
                take(entry.key, *present(entry.value, pieces[entry.name], where))

    def full_copy(self) -> nn.Module:
        """Return a copy of the model at full size, with the most recent values; a sharded one has none."""
        model = twin_of(self.model) if is_sharded(self.model) else self.model
        tensors = named_tensors(model)
        full = {}
        for name in self.layout():
            old = tensors[name]
            if old.is_meta:
                value = old.new_empty(self.tracked.sizes[name])
            else:
                value = self.store.take(f"model/{name}", {}, old.device)
            full[name] = replacement(old, value)
        return copy_with(model, full, self.graph.traced.widths(self.graph.everything()))

    def moving(self, alive: AtomMask) -> Callable[[], None]:
        """Prepare to change to the atoms `alive`, with stored values; return a function that does it."""
        before, after = self.layout(), self.layout(alive)
        changed = {
            name: where
            for name, where in after.items()
            if any(not np.array_equal(where[dim], before[name][dim]) for dim in where)
        }
        change = self.mode.exchange(
            self.tracked, self.store, before, changed, self.graph.traced.widths(alive)
        )

        def move() -> None:
            change()
            self.set_alive(alive)
            self.mode.changed(self.compiled)

        return move

    def set_alive(self, alive: AtomMask) -> None:
        """Record that the atoms `alive` are in the model now."""
        self.alive = alive
        self.hold = self.mode.holder(self.tracked, self.layout())

    def shrink_for_good(self, alive: AtomMask, known: Collection[str] = ()) -> None:
        """Shrink model, copies and optimizer to the atoms `alive`, whatever the mode.

        `known` is as for :meth:`absorb`.
        """
        absorb = partial(self.absorb, known=known)
        widths = self.graph.traced.widths(alive)
        self.mode = self.mode.shrunk(self.tracked, self.layout(alive), absorb, self.store, widths)
        self.set_alive(alive)

    def finish(self) -> None:
        """Make the structure final, and the tensors small where that can be done in place."""
        if not is_sharded(self.model):
            self.shrink_for_good(self.alive)
        self.end()

    def end(self) -> None:
        """Record that no event follows."""
        self.unhook()
        self.record_plan()
        self.store = Store()
        self.finished = True

    def record_plan(self) -> None:
        """Record the plan on a smaller model, so that `reprune.save` can write it."""
        if self.mode.small:
            plan = self.plan()
            for _, model in self.tracked.models():
                set_widths(model, plan.widths)
                remember_plan(model, plan, self.first)

    def undo(self) -> Callable[[], None]:
        """Return a function that restores the present state, apart from model and optimizer."""
        before, full = dict(vars(self)), dict(self.store.full)

        def put_back() -> None:
            vars(self).clear()
            vars(self).update(before)
            self.store.full = full

        return put_back


def _nothing() -> None:
    pass
