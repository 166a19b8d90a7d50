"""The pruner: REPrune's concurrent paradigm, in two lines of anyone's loop."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ..arguments import seed_of, shown
from ..clustering.backend import resolve
from ..graph import LAYERS
from ..graph import Mask as Atoms
from ..modules.sizes import set_widths
from ..modules.slicing import copy_with, named_tensors, replacement
from ..modules.wrappers import named_parameters, unwrap
from ..optimizers import Keeper
from ..plan import PruningPlan, plan_of, remember_plan
from ..planner import plan_of_atoms
from ..targets import MinKeep, check_bounds, check_reach, choice, landing_notes, target_of
from . import state
from .compiled import CompiledCode
from .decide import Found, Rules, decide
from .distributed import agreed, check_alike, digest, rank_and_size, shared
from .enforce import Enforcement, Shrink
from .finite import check_finite, not_finite
from .history import Event, History
from .mask import Mask
from .members import Members
from .schedule import Schedule
from .store import Store
from .structure import Structure


class Pruner:
    """Prunes `model` while `optimizer` trains it::

        pruner = reprune.Pruner(model, optimizer, images[:2], sparsity=0.5, interval=2, until=180)
        for epoch in range(epochs):
            train_one_epoch(model, optimizer)       # your loop, unchanged
            pruner.step()                           # like a learning-rate scheduler
        pruner.finalize()
        reprune.save(model, "small.safetensors")

    At the end of every `interval`-th epoch up to `until` channels are selected among those that are there
    (REPrune, Park et al., AAAI 2024, Algorithm 2) and some of the dropped come back (CHEX, Hou et al.,
    2022); after the last of these events the structure is final and the training goes on to its end.

    Args:
        model: any eager model, at full size; inside torch.compile, and in mask mode
            DistributedDataParallel, as well.
        optimizer: the one that trains it, with any parameter groups; those inside it go along.  In shrink
            mode its state must be tensors of the shape of the parameter, or single numbers; in mask mode a
            state that is not starts anew at :meth:`finalize`.  docs/training.md has a table.
        example_inputs: what the model takes: a tensor, a tuple of positional or a dictionary of keyword
            arguments.
        sparsity, flops, params: the target, one of them, as in :func:`reprune.make_plan`.
        interval, until: epochs between events, and the epoch after which there are none.
        regrow: the share of each layer's channels that comes back at first; along a cosine it falls to 0.
        mode: ``"shrink"``: parameters, buffers, gradients and optimizer state become smaller at every event,
            and training faster.  ``"mask"``: dropped channels are zeros in tensors of full size until
            :meth:`finalize`.
        copies: further models with the same tensors that go along, such as
            ``torch.optim.swa_utils.AveragedModel``.
        seed, ties, scope, rule, layers, min_keep, ignore, round_to, backend: as in :func:`reprune.make_plan`.

    A channel that comes back goes on from where it left: filter, the next layers' input slices, BatchNorm
    parameters and statistics, optimizer state.

    In shrink mode an event puts new parameters into the model and the optimizer: wrap it anew in
    DistributedDataParallel where ``step()`` returns True.

    Raises ``ValueError`` or ``TypeError`` for arguments that are wrong or do not fit each other.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        example_inputs: Any,
        *,
        sparsity: float | None = None,
        flops: float | None = None,
        params: float | None = None,
        interval: int = 2,
        until: int = 180,
        regrow: float = 0.3,
        mode: str = "shrink",
        copies: Sequence[nn.Module] = (),
        seed: int = 0,
        ties: str = "random",
        scope: str = "internal",
        rule: str = "bn",
        layers: str = "conv",
        min_keep: MinKeep = 1,
        ignore: Sequence[str] = (),
        round_to: int = 1,
        backend: str = "auto",
    ) -> None:
        target = target_of(sparsity, flops, params, None)
        self.schedule = Schedule(interval, until, regrow)
        choice("mode", mode, ("shrink", "mask"))
        choice("rule", rule, ("bn", "uniform"))
        choice("scope", scope, ("internal", "all"))
        choice("ties", ties, ("random", "norm"))
        choice("layers", layers, LAYERS)
        round_to, min_keep, ignore = check_bounds(round_to, min_keep, ignore)
        seed_of(seed)
        seed = int(seed)
        inner, around = unwrap(model)
        averaged = _modules(copies)
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(f"optimizer: expected a torch.optim.Optimizer, got {shown(optimizer)}")
        if mode == "shrink" and around & {"DistributedDataParallel", "DataParallel"}:
            raise ValueError(
                "model: in mode='shrink' pass the module inside DistributedDataParallel (model.module) and "
                "wrap it "
                "anew where step() returns True; or use mode='mask'"
            )
        self.model, self.optimizer, self.mode = inner, optimizer, mode
        self._members = Members(inner, optimizer, [unwrap(copy)[0] for copy in averaged])
        self._members.check(self._members.sizes)
        device = next(inner.parameters()).device.type
        self._rules = Rules(target, rule, round_to, min_keep, seed_of(seed), ties, resolve(backend, device))
        self._settings = {target[0]: target[1], "rule": rule, "scope": scope, "round_to": round_to}
        least = dict(min_keep) if isinstance(min_keep, Mapping) else min_keep
        self._settings |= {"layers": layers, "min_keep": least, "ignore": list(ignore)}
        self._settings |= {"seed": seed, "ties": ties}
        self._settings |= {"interval": self.schedule.interval, "until": self.schedule.until}
        self._settings |= {"regrow": self.schedule.regrow}

        self._structure = Structure(inner, example_inputs, scope, rule, layers, ignore)
        self._graph = self._structure.graph
        check_reach(self._graph, target, round_to, min_keep)
        self._first = plan_of(inner)
        self._alive: Atoms = self._graph.everything()
        self._coverage = {group.name: 1.0 for group in self._graph.groups}
        self._store = Store()
        self._compiled = CompiledCode(model)
        self._enforcement: Enforcement = Shrink() if mode == "shrink" else self._structure.mask(inner)
        self._hold: Callable[[], None] = lambda: None
        self._check()
        layout = self._structure.layout(self._alive)
        self._odd = {k: said for k, said in not_finite(self._members).items() if k[1] not in layout}
        self._unhook = Keeper(optimizer).after_each_step(lambda: self._hold())
        self.epoch = 0
        """Epochs done."""
        self.history = History()
        """One record per event."""
        self.finished = False
        """``finalize()`` was called."""

    @torch.inference_mode(False)
    def step(self) -> bool:
        """Call at the end of every epoch.  Returns True if it was one with an event.

        Raises ``ValueError`` if the optimizer does not hold the model's parameters (any more), the model was
        changed by someone else, or an event finds NaN or infinite values.  After an error all is as it was.
        """
        if self.finished:
            self.epoch += 1
            return False
        event = self.schedule.fires(self.epoch + 1)
        if event:
            self._event(self.epoch + 1, final=self.epoch + 1 == self.schedule.last)
        else:
            self._check()
        self.epoch += 1
        return event

    @torch.inference_mode(False)
    def finalize(self) -> PruningPlan:
        """Make the structure final and the model small; call it after the last epoch.  Returns the plan.

        In mask mode the tensors are cut now, in place; use the model inside wrappers from here on.  If the
        last event has not come yet it comes now, with a warning.  ``ValueError`` if there was no event at
        all.
        """
        if not self.finished:
            if not len(self.history):
                raise ValueError(
                    f"finalize: no event came in {self.epoch} epochs, so nothing was pruned; call step() "
                    f"at the end "
                    f"of every epoch, or use an interval below {self.schedule.interval}"
                )
            if self.history[-1].epoch >= self.schedule.last:
                self._check()
            else:
                warnings.warn(
                    f"finalize: the training ended after {self.epoch} epochs, before the last event (epoch "
                    f"{self.schedule.last}): it comes now, and nothing is trained after it",
                    stacklevel=2,
                )
                self._event(max(self.epoch, 1), final=True)
            if self.mode == "mask":
                self._leave_mask(self._alive)
            self._unhook()
            self._tell_plan()
            self._store = Store()
            self.finished = True
        return self.plan

    @property
    def copies(self) -> tuple[nn.Module, ...]:
        """The copies of the model that are pruned with it."""
        return self._members.copies

    @property
    def plan(self) -> PruningPlan:
        """What the last event kept and let come back, as a plan for the full model."""
        plan = self.plan_with(self._alive)
        if not len(self.history) or self.history[-1].epoch < self.schedule.last:
            return plan  # channels come back until the last event
        rules = self._rules
        notes = landing_notes(self._graph, rules.target, self._alive, rules.round_to, rules.min_keep)
        return replace(plan, notes=(*plan.notes, *notes))

    def plan_with(self, alive: Atoms) -> PruningPlan:
        """The plan that keeps the atoms `alive` of the full model."""
        return plan_of_atoms(self._graph, alive, self._coverage, self._members.sizes, dict(self._settings))

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on: plain values and tensors, those of dropped channels included."""
        return state.save(self)

    @torch.inference_mode(False)
    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from `saved`, with a model at full size or at any other point of the same training.

        Model and optimizer get their structure; load their own states after this.
        :func:`reprune.load_training` does it all.  ``ValueError`` if `saved` is of another model; then
        nothing is changed.
        """
        state.load(self, saved)

    def _check(self) -> None:
        layout = self._structure.layout(self._alive)
        self._members.check(
            {
                name: self._enforcement.shape(size, layout.get(name, {}))
                for name, size in self._members.sizes.items()
            }
        )
        self._members.check_references(layout)
        if self._enforcement.every:
            self._members.check_hooks(layout)
            self._members.check_states(layout)

    def _event(self, epoch: int, final: bool) -> None:
        start = time.perf_counter()
        check_alike(shared(lambda: self._ready(epoch, final)))
        number = len(self.history)
        share = 0.0 if final else self.schedule.share(epoch)
        found = decide(
            self._graph,
            self._structure.source(self.model, self._store.full),
            self._alive,
            self._rules,
            number,
            share,
        )
        kept, grown = self._graph.everything(), self._graph.everything()
        for group in self._graph.groups:
            kept[group.atoms] = False
            kept[found[group.name].kept] = True
        kept = self._graph.traced.filled(kept)
        grown = kept.copy()
        for result in found.values():
            grown[result.regrown] = True
        agreed(lambda: self._prepared(grown, final))()
        self._coverage = {name: f.covered / f.clusters if f.clusters else 1.0 for name, f in found.items()}
        self.history.add(self._record(epoch, found, kept, grown, time.perf_counter() - start))
        self._tell_plan()

    def _ready(self, epoch: int, final: bool) -> dict[str, str]:
        """Check all and take in the values of today; returns in what all processes must be alike."""
        self._check()
        check_finite(self._members, self._odd)
        if isinstance(self._enforcement, Mask):
            self._enforcement.check(self._members, self._structure.layout(self._alive))
        self._absorb(self._enforcement.every)
        if rank_and_size()[1] == 1:
            return {}
        alike: dict[str, Any] = {"epoch": epoch, "event": len(self.history), "final": final}
        alike |= {"mode": self.mode, **self._settings}
        parameters = named_parameters(self.model).items()
        return {
            **{name: repr(value) for name, value in alike.items()},
            "set of channels": digest(torch.from_numpy(self._alive)),
            **{f"parameter {name}": f"{tuple(p.shape)} of digest {digest(p)}" for name, p in parameters},
        }

    def _prepared(self, alive: Atoms, final: bool) -> Callable[[], None]:
        """What moves to the atoms `alive`, which are certified first if they are to be `final`."""
        if final:
            self._structure.certify(self._whole(), alive)
        return self._moving(alive)

    def _leave_mask(self, alive: Atoms) -> None:
        """Cut model, copies and optimizer to `alive`."""
        layout = self._structure.layout(alive)
        self._members.check_hooks(layout)
        obstacle = self._members.state_obstacle(layout)
        if obstacle:
            warnings.warn(
                f"finalize: the optimizer's state could not be cut ({obstacle}); it starts anew", stacklevel=3
            )
        self._absorb(every=True)
        small = Shrink(restart=bool(obstacle))
        small.exchange(self._members, self._store, {name: {} for name in layout}, layout)()
        self._enforcement = Shrink()
        self._alive = alive

    def _absorb(self, every: bool) -> None:
        """Bring the store up to date with what is there."""
        layout = self._structure.layout(self._alive)
        take, live = self._store.absorb, self._enforcement.live
        states = self._members.states(layout, every)
        for prefix, model in self._members.models():
            tensors = named_tensors(model)
            for name, where in layout.items():
                take(f"{prefix}/{name}", live(tensors[name], where), self._members.sizes[name], where)
        for entry in states:
            where = layout[entry.name]
            take(entry.key, live(entry.value, where), self._members.sizes[entry.name], where)

    def _whole(self) -> nn.Module:
        """A copy of the model at full size, with values of the store: for a look, not for training."""
        tensors, whole = named_tensors(self.model), {}
        for name in self._structure.layout(self._alive):
            value = self._store.take(f"model/{name}", {}, tensors[name].device)
            whole[name] = replacement(tensors[name], value)
        return copy_with(self.model, whole, self._graph.traced.widths(self._graph.everything()))

    def _move(self, alive: Atoms) -> None:
        """Enforce another set of atoms, with values of the store."""
        self._moving(alive)()

    def _moving(self, alive: Atoms) -> Callable[[], None]:
        """Make ready to enforce another set of atoms, with values of the store; what is returned does it."""
        before, after = self._structure.layout(self._alive), self._structure.layout(alive)
        changed = {
            name: where
            for name, where in after.items()
            if any(not np.array_equal(where[dim], before[name][dim]) for dim in where)
        }
        change = self._enforcement.exchange(self._members, self._store, before, changed)

        def move() -> None:
            change()
            self._alive = alive
            if isinstance(self._enforcement, Mask):
                self._hold = self._enforcement.holder(self._members, after)
            else:
                self._compiled.drop_stale()

        return move

    def _tell_plan(self) -> None:
        """In shrink mode the model carries the plan that made it, so that ``reprune.save`` can write it."""
        if isinstance(self._enforcement, Shrink):
            plan = self.plan
            for _, model in self._members.models():
                set_widths(model, plan.widths)
                remember_plan(model, plan, self._first)

    def _record(
        self, epoch: int, found: Mapping[str, Found], kept: Atoms, grown: Atoms, seconds: float
    ) -> Event:
        traced = self._graph.traced
        total = sum(group.atoms.size for group in self._graph.groups)
        clusters = sum(f.clusters for f in found.values())
        return Event(
            epoch=epoch,
            sparsity=1 - sum(f.kept.size for f in found.values()) / total,
            kept={name: f.kept.size for name, f in found.items()},
            regrown={name: f.regrown.size for name, f in found.items()},
            clusters={name: f.clusters for name, f in found.items() if f.clusters},
            coverage=sum(f.covered for f in found.values()) / clusters if clusters else 1.0,
            flops=traced.flops.at(kept.astype(np.float64)) / traced.flops.full,
            flops_regrown=traced.flops.at(grown.astype(np.float64)) / traced.flops.full,
            seconds=seconds,
        )


def _modules(copies: Any) -> list[nn.Module]:
    try:
        found = None if isinstance(copies, nn.Module) else list(copies)
    except TypeError:
        found = None
    if found is None or not all(isinstance(copy, nn.Module) for copy in found):
        raise TypeError(f"copies: expected a list of models, got {shown(copies)}")
    return found
