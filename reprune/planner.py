"""Planning a whole model: graph, counts (step 1), selection (steps 2 and 3), certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from .aliases import Progress
from .arguments import number, shown
from .graph import ChannelGraph, build_graph
from .layer_problems import Chosen, require_finite, select_groups
from .modules.copying import whole_copy
from .modules.slicing import named_tensors
from .modules.wrappers import named_parameters, unwrap
from .plan import PruningPlan
from .plan.check import fingerprint_of
from .surgery import apply
from .targets import (
    Select,
    checked,
    counts_from_keep,
    counts_of,
    in_scope,
    landing_notes,
    rankable,
    without_ignored,
)

_LAYER_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "conv": ("convolutions", (nn.modules.conv._ConvNd,)),
    "linear": ("Linear layers", (nn.Linear,)),
    "all": ("convolutions or Linear layers", (nn.modules.conv._ConvNd, nn.Linear)),
}


_SECONDS = "a positive number of seconds or None"


def make_plan(
    model: nn.Module,
    example_inputs: Any,
    *,
    sparsity: float | None = None,
    flops: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    size_mb: float | None = None,
    keep: Mapping[str, int] | None = None,
    rule: str = "bn",
    scope: str = "internal",
    layers: str = "conv",
    round_to: int = 1,
    min_keep: int | Mapping[str, int] = 1,
    ignore: Sequence[str] = (),
    time_limit: float | None = None,
    seed: int = 0,
    ties: str = "random",
    backend: str = "auto",
    select: Select | None = None,
    progress: Progress | None = None,
) -> PruningPlan:
    """Decide which channels of `model` to keep, by REPrune (Park et al., AAAI 2024).

    Exactly one target:

    sparsity
        Share of the channels to drop, over all layers together (Eq. 8), in (0, 1).
    flops, params
        Share of the FLOPs or parameters to leave at most, in (0, 1); met by bisection on the global sparsity.
    latency
        Share of the time of a forward pass to leave, in (0, 1), on the device and with the batch size,
        threads and memory format of `model` and `example_inputs`.  Met by a search over timings of real
        networks, within 5 %, or below that where `round_to` leaves gaps, for two minutes or so at most;
        `plan.notes` has the measured share, its quartiles, and whether they scatter so much that they are
        not to be trusted.
    size_mb
        Most megabytes (10^6 bytes) of parameters and buffers, as in a file.
    keep
        ``{layer: output channels to keep}``; the other layers stay whole.

    Args:
        model: any eager model; it is run, in evaluation and training mode, and left as it was.  Inside
            torch.compile, DistributedDataParallel and the like it is that inside, under its own names.
        example_inputs: a tensor, a tuple of positional or a dictionary of keyword arguments of the model,
            on its device.
        rule: how the share of each layer is found: ``"bn"`` by the BatchNorm scales of all layers (Eq. 8-9),
            ``"uniform"`` the same share of each.
        scope: ``"internal"``: groups of channels that meet in no addition; ``"all"``: residual streams too.
        layers: whose output channels are decided about: ``"conv"``, convolutions (the paper); ``"linear"``,
            Linear layers, such as the hidden dimension of a transformer's feed-forward blocks, where a kernel
            is one number; ``"all"``, both.  A group with several producing layers is selected as one.
        round_to: keep a multiple of this many channels (never more than there are).
        min_keep: the fewest channels of a layer, or ``{layer: the fewest of its channels}``.
        ignore: layers that stay whole, with all that share their channels.  Here and in `min_keep` a layer is
            given by its name, that of a module around it, or a pattern (``"layer1.*.conv2"``).
        time_limit: seconds after which tracing gives up (default: none).
        seed, ties: how ties between filters are broken, see :func:`reprune.max_coverage`.
        backend: who clusters, see :mod:`reprune.clustering.backends`.
        select: another criterion in the place of REPrune's: a function that is given each group of channels
            as a :class:`reprune.clustering.selection.LayerProblem` (`name`, `tables` of numpy arrays ``[I, O,
            d]``, `keep`) and returns the `keep` channels of 0..O-1 that stay; nothing is clustered then.
        progress: called as ``progress(stage, done, total)``, stage "trace", "measure" (latency), "select" or
            "certify".

    Raises:
        ValueError: a target that is missing, doubled, out of range or out of reach (it says what is within);
            a wrong name in `keep`, `min_keep` or `ignore`; a model without such layers or without any that
            may lose channels; NaN or infinite weights; ``rule="bn"`` without BatchNorms or with all scales
            equal.
        TimeoutError: tracing took longer than `time_limit`; the networks took so long that no `latency` as
            small as asked for was found.
        BackendUnavailable: `backend` cannot run here.
    """
    model = unwrap(model)[0]
    settings = checked(
        sparsity=sparsity,
        flops=flops,
        params=params,
        latency=latency,
        size_mb=size_mb,
        keep=keep,
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
    if time_limit is not None and not number(time_limit, "time_limit", _SECONDS) > 0:
        raise ValueError(f"time_limit: expected {_SECONDS}, got {time_limit!r}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: expected a function or None, got {shown(progress)}")
    device = next(model.parameters()).device.type if any(True for _ in model.parameters()) else "cpu"
    settings = settings.on(device)
    if device == "meta":
        raise ValueError("model: its tensors are on the device 'meta'; there are no values to select by")
    what, kinds = _LAYER_TYPES[layers]
    if not any(isinstance(module, kinds) for module in model.modules()):
        raise ValueError(f"model: expected a network with {what}, found none in it")

    graph = build_graph(model, example_inputs, progress, layers, time_limit)
    graph = in_scope(without_ignored(graph, settings.ignore), scope)
    scales = require_finite(
        {producer.name: producer.kernel for group in graph.groups for producer in group.producers},
        _scales(graph) if rule == "bn" else {},
    )
    while True:
        if settings.target[0] == "keep":
            counts, notes = counts_from_keep(graph, settings.target[1]), list[str]()
            rest = [group for group in graph.groups if group.name not in counts]
            graph = graph.without(rest, "not named in keep")
        else:
            graph = rankable(graph, rule)
            counts, notes = counts_of(graph, settings, scales, progress=progress)
        selections = select_groups(graph, counts, settings, progress)
        kept = _kept(graph, selections)
        if progress is not None:
            progress("certify", 0, 1)
        certified = graph.certified(kept)
        if progress is not None:
            progress("certify", 1, 1)
        if certified is graph:
            break
        graph = certified
    found = zip(graph.groups, selections, strict=True)
    coverage = {group.name: s.coverage for group, s in found if s.coverage is not None}
    tensors = named_tensors(model)
    shapes = {name: tuple(tensors[name].shape) for name in tensors}
    plan = plan_of_atoms(graph, kept, coverage, shapes, settings.to_dict())
    return replace(plan, notes=(*plan.notes, *notes, *landing_notes(graph, settings, kept)))


def prune(
    model: nn.Module,
    example_inputs: Any,
    *,
    sparsity: float | None = None,
    flops: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    size_mb: float | None = None,
    keep: Mapping[str, int] | None = None,
    rule: str = "bn",
    scope: str = "internal",
    layers: str = "conv",
    round_to: int = 1,
    min_keep: int | Mapping[str, int] = 1,
    ignore: Sequence[str] = (),
    time_limit: float | None = None,
    seed: int = 0,
    ties: str = "random",
    backend: str = "auto",
    select: Select | None = None,
    progress: Progress | None = None,
) -> tuple[nn.Module, PruningPlan]:
    """Make a smaller copy of `model`, and the plan that made it.

    This is :func:`make_plan`, which describes the arguments and the errors, followed by :func:`apply` to a
    copy; `model` is left as it was, and the copy has none of the wrappers that were around it.
    """
    plan = make_plan(
        model,
        example_inputs,
        sparsity=sparsity,
        flops=flops,
        params=params,
        latency=latency,
        size_mb=size_mb,
        keep=keep,
        rule=rule,
        scope=scope,
        layers=layers,
        round_to=round_to,
        min_keep=min_keep,
        ignore=ignore,
        time_limit=time_limit,
        seed=seed,
        ties=ties,
        backend=backend,
        select=select,
        progress=progress,
    )
    small = whole_copy(unwrap(model)[0])
    apply(plan, small)
    return small, plan


def _scales(graph: ChannelGraph) -> dict[str, Tensor]:
    tensors = named_tensors(graph.model)
    return {name: tensors[name] for group in graph.groups for name, *_ in group.gammas}


def _kept(graph: ChannelGraph, selections: list[Chosen]) -> npt.NDArray[np.bool_]:
    kept = graph.everything()
    for group, selection in zip(graph.groups, selections, strict=True):
        kept[group.atoms] = False
        kept[group.atoms[selection.keep]] = True
    return graph.traced.filled(kept)


def plan_of_atoms(
    graph: ChannelGraph,
    kept: npt.NDArray[np.bool_],
    coverage: Mapping[str, float],
    shapes: Mapping[str, tuple[int, ...]],
    settings: dict[str, Any],
) -> PruningPlan:
    """The plan that keeps the atoms `kept` [atoms] of a model whose tensors had `shapes`.

    `coverage` is that of each group that was clustered.
    """
    traced = graph.traced
    slices = traced.slices(kept)
    decided = {p.name: coverage.get(group.name) for group in graph.groups for p in group.producers}
    problem = traced.training_problem
    return PruningPlan(
        keep={name: np.flatnonzero(kept[line]) for name, line in graph.channels.items() if name in decided},
        channels={name: line.size for name, line in graph.channels.items()},
        skipped=graph.skipped,
        flops=(traced.flops.full, round(traced.flops.at(kept.astype(np.float64)))),
        params=(traced.params.full, round(traced.params.at(kept.astype(np.float64)))),
        slices=slices,
        widths=traced.widths(kept),
        shapes={name: shapes[name] for name in slices},
        coverage={name: share for name in graph.channels if (share := decided.get(name)) is not None},
        settings=settings,
        notes=(f"the model could be traced in evaluation mode only ({problem})",) if problem else (),
        fingerprint=fingerprint_of({name: shapes[name] for name in named_parameters(graph.model)}),
    )
