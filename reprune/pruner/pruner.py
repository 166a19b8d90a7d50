"""Define the pruner: REPrune's concurrent training and pruning, in two lines of the user's loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..arguments import shown
from ..fsdp import Shard
from ..modules.sharded import is_sharded
from ..modules.wrappers import unwrap
from ..plan import PruningPlan, plan_of
from ..targets import MinKeep, Select, check_reach, checked, require_choice
from . import snapshot as state
from .compiled import CompiledCode
from .event import run_event
from .history import History
from .live import Live
from .mask import MaskMode
from .mode import Mode
from .reshard import ReshardMode
from .schedule import Schedule
from .shrink import ShrinkMode
from .structure import Structure
from .tracked import Tracked

MODES: dict[str, type[Mode]] = {"shrink": ShrinkMode, "mask": MaskMode}


class Pruner:
    """Prunes `model` while `optimizer` trains it.

    At the end of every `interval`-th epoch up to `until`, channels are selected among those present (REPrune,
    Park et al., AAAI 2024, Algorithm 2) and some of the dropped ones are regrown (CHEX, Hou et al., CVPR
    2022). After the last of these events the structure is final, and the training continues to its end. A
    regrown channel has the values that it had when it was dropped: its filter, the next layers' input slices,
    BatchNorm parameters and statistics, optimizer state.

    In shrink mode an event puts new parameters into the model and the optimizer: wrap the model anew in
    DistributedDataParallel where `step()` returns True. A sharded model is a new one then: take
    `pruner.model`.

    Args:
        model: Any eager model, at full size; inside torch.compile, and in mask mode in
            DistributedDataParallel, as well. `fully_shard` may have sharded it.
        optimizer: The optimizer that trains it, with any parameter groups; those that wrap another are
            followed inside. In shrink mode its state must be tensors of the shape of the parameter, or
            single numbers; in mask mode a state that is neither starts anew at :meth:`finalize`.
            docs/training.md has a table of optimizers.
        example_inputs: What the model takes: a tensor, a tuple of positional or a dictionary of keyword
            arguments. Or what :func:`reprune.trace` returned for it.
        sparsity: Fraction of the channels to remove; or
        flops: maximum fraction of the FLOPs to retain; or
        params: maximum fraction of the parameters to retain, as in :func:`reprune.make_plan`.
        interval: Epochs from one event to the next.
        until: Epoch after which there are no events.
        regrow: Fraction of each layer's channels that the first event regrows; it falls to 0 along a cosine.
        mode: `"shrink"`: parameters, buffers, gradients and optimizer state become smaller at every event,
            and training faster. `"mask"`: dropped channels are zeros in tensors of full size until
            :meth:`finalize`.
        copies: Further models with the same tensors that are pruned too, such as
            `torch.optim.swa_utils.AveragedModel`.
        seed: As in :func:`reprune.make_plan`, like all that follow.
        ties: How ties between filters are broken.
        scope: Which groups of channels are pruned.
        rule: How the count of each layer is found: `"bn"` or `"uniform"`.
        layers: Which layers' output channels can be pruned.
        min_keep: Minimum number of channels of a layer.
        ignore: Layers that are not pruned.
        round_to: Layers keep a multiple of this many channels, or all.
        backend: Backend that runs the clustering.
        select: Another criterion.
        shard: In shrink mode, for a model that `fully_shard` has sharded: the function that shards it, as
            :func:`reprune.fsdp.apply` describes it.

    Raises:
        ValueError: An argument is out of range, or does not fit the others or the model.
        TypeError: An argument has a wrong type.

    Examples:
        Two lines in a loop that is otherwise unchanged:

        >>> import torch, reprune
        >>> from torch import nn
        >>> model = nn.Sequential(
        ...     nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 10)
        ... )
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> images, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
        >>> pruner = reprune.Pruner(
        ...     model, optimizer, images[:2], sparsity=0.5, rule="uniform", interval=1, until=3
        ... )
        >>> for epoch in range(4):
        ...     optimizer.zero_grad()
        ...     nn.functional.cross_entropy(model(images), labels).backward()
        ...     optimizer.step()
        ...     event = pruner.step()  # at the end of every epoch, like a learning-rate scheduler
        >>> plan = pruner.finalize()
        >>> model[0].out_channels
        8
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
        select: Select | None = None,
        shard: Shard | None = None,
    ) -> None:
        settings = checked(
            sparsity=sparsity,
            flops=flops,
            params=params,
            rule=rule,
            scope=scope,
            layers=layers,
            round_to=round_to,
            min_keep=min_keep,
            ignore=ignore,
            seed=seed,
            ties=ties,
            backend=backend,
            select=select,
        )
        if settings.by_images:
            raise ValueError(
                "rule: expected 'bn' or 'uniform', as a Pruner has no images to compare layers by; "
                f"make_plan and prune take them (calibrate=); got {rule!r}"
            )
        schedule = Schedule(interval, until, regrow)
        require_choice("mode", mode, tuple(MODES))
        inner, around = unwrap(model)
        averaged = _modules(copies)
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(f"optimizer: expected a torch.optim.Optimizer; got {shown(optimizer)}")
        MODES[mode].check_wrappers(around)
        tracked = Tracked(inner, optimizer, [unwrap(copy)[0] for copy in averaged])
        tracked.check(tracked.sizes)
        way = _way(mode, tracked, shard)
        device = next(inner.parameters()).device.type
        settings.on(device)  # raises before the model runs
        structure = Structure(inner, example_inputs, settings)
        settings = settings.on(device, structure.graph.widest())
        check_reach(structure.graph, settings)
        self.live = Live(
            tracked,
            structure,
            settings,
            schedule,
            mode,
            way(structure, inner),
            plan_of(inner),
            CompiledCode(model),
        )
        """The training that is being pruned; internal to reprune."""

    @property
    def model(self) -> nn.Module:
        """The model that is pruned, without wrappers around it; a new one after events with `shard`."""
        return self.live.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer that trains it."""
        return self.live.tracked.optimizer

    @property
    def copies(self) -> tuple[nn.Module, ...]:
        """The copies of the model that are pruned with it."""
        return self.live.tracked.copies

    @property
    def mode(self) -> str:
        """`"shrink"` or `"mask"`."""
        return self.live.asked

    @property
    def schedule(self) -> Schedule:
        """When events happen, and how many channels they regrow."""
        return self.live.schedule

    @property
    def epoch(self) -> int:
        """Number of epochs done."""
        return self.live.epoch

    @property
    def history(self) -> History:
        """One record per event."""
        return self.live.history

    @property
    def finished(self) -> bool:
        """Whether :meth:`finalize` was called."""
        return self.live.finished

    @property
    def plan(self) -> PruningPlan:
        """What the last event kept and regrew, as a plan for the full model."""
        return self.live.plan()

    @torch.inference_mode(False)
    def step(self) -> bool:
        """Count an epoch, at its end; return True if an event was due.

        Raises `ValueError` if the optimizer does not hold the model's parameters (any more), the model was
        changed outside the pruner, or an event finds NaN or infinite values. Nothing is changed then.
        """
        live, epoch = self.live, self.live.epoch + 1
        event = not live.finished and live.schedule.fires(epoch)
        if event:
            run_event(live, epoch, final=epoch == live.schedule.last)
        elif not live.finished:
            live.check()
        live.epoch = epoch
        return event

    @torch.inference_mode(False)
    def finalize(self) -> PruningPlan:
        """Make the structure final and the model small, after the last epoch; return the plan.

        In mask mode the tensors are sliced now, in place; use the model inside wrappers from now on. If the
        last event has not happened yet, it happens now, with a warning. Raises `ValueError` if there was no
        event at all.

        A sharded model keeps its size and its zeros in mask mode: give the plan to
        :func:`reprune.fsdp.apply`.
        """
        live = self.live
        if live.finished:
            return self.plan
        if not len(live.history):
            raise ValueError(
                f"finalize: no event came in {live.epoch} epochs, so nothing was pruned; call step() at the "
                f"end of every epoch, or use an interval below {live.schedule.interval}"
            )
        if live.history[-1].epoch >= live.schedule.last:
            live.check()
        else:
            warnings.warn(
                f"finalize: the training ended after {live.epoch} epochs, before the last event (epoch "
                f"{live.schedule.last}): it comes now, and nothing is trained after it",
                stacklevel=2,
            )
            run_event(live, max(live.epoch, 1), final=True)
        live.finish()
        return self.plan

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a resume: plain values and tensors, also of dropped channels.

        Of a sharded model it is what this process has, and where that lies in the whole.
        """
        return state.save(self.live)

    @torch.inference_mode(False)
    def load_state_dict(self, saved: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Resume from `saved`, with a model at full size or at any point of the same training.

        Model and optimizer get their structure; load their own states after this.
        :func:`reprune.load_training` does all of it.

        Args:
            saved: What `state_dict` returned. Of a training of a sharded model: what it returned on this
                process, or a list of what it returned on each, from which any number of processes can
                resume, also one with the model in one piece.

        Raises:
            ValueError: It belongs to another model or to other settings; or states of several processes are
                of different epochs, or some are missing. Nothing is changed then.
            TypeError: It is no state.
        """
        state.load(self.live, saved)


def _way(mode: str, tracked: Tracked, shard: Shard | None) -> Callable[[Structure, nn.Module], Mode]:
    """Return how the mode is made that the user named."""
    if not is_sharded(tracked.model):
        if shard is not None:
            raise ValueError("shard: expected None for a model that fully_shard has not sharded")
        return MODES[mode].of
    if MODES[mode] is MaskMode:
        return MaskMode.of
    if not callable(shard):
        raise ValueError(
            "shard: expected the function that shards the model, as in mode='shrink' an event makes a new "
            f"one; got {shown(shard)}; or use mode='mask', and reprune.fsdp.apply after finalize()"
        )
    if tracked.copies:
        raise ValueError(
            "copies: expected none, as shard makes one model anew; use mode='mask' for a sharded model with "
            "copies"
        )
    return lambda structure, model: ReshardMode(shard)


def _modules(copies: Any) -> list[nn.Module]:
    try:
        found = None if isinstance(copies, nn.Module) else list(copies)
    except TypeError:
        found = None
    if found is None or not all(isinstance(copy, nn.Module) for copy in found):
        raise TypeError(f"copies: expected a list of models; got {shown(copies)}")
    return found
