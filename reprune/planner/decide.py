"""Decide what stays of a model: counts (step 1), selection (steps 2 and 3), certificate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from ..aliases import Progress
from ..compensation.images import Images
from ..distributed import together
from ..graph import ChannelGraph, ModelTrace, certifying, trace
from ..graph.model_trace import Certified, check_watch
from ..layer_problems import Chosen, require_finite, select_groups
from ..modules.linear import is_linear
from ..modules.sharded import is_sharded
from ..modules.slicing import named_tensors
from ..modules.wrappers import named_parameters, unwrap
from ..plan import PruningPlan
from ..plan.check import fingerprint_of
from ..reconstruction.images import Reconstruction
from ..targets import (
    Settings,
    counts_from_keep,
    counts_of,
    in_scope,
    landing_notes,
    rankable,
    without_ignored,
)
from .shards import Shards


def _is_conv(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.conv._ConvNd)


_LAYER_TYPES: dict[str, tuple[str, Callable[[nn.Module], bool]]] = {
    "conv": ("convolutions", _is_conv),
    "linear": ("Linear layers", is_linear),
    "all": ("convolutions or Linear layers", lambda module: _is_conv(module) or is_linear(module)),
}


def decided_plan(
    model: nn.Module,
    example_inputs: Any,
    settings: Settings,
    images: Images | None,
    time_limit: float | None,
    progress: Progress | None,
) -> PruningPlan:
    """Return the plan that `make_plan` makes with `settings`; `images` may be there without a use."""
    model = unwrap(model)[0]
    with together("make_plan") if is_sharded(model) else nullcontext():
        shards = Shards(model, settings) if is_sharded(model) else None
        if not settings.by_images:
            images = None
        elif images is None:
            what = "criterion='covariance'" if settings.criterion == "covariance" else "rule='error'"
            raise ValueError(
                f"calibrate: {what} needs images, some 256 of those that the model was trained on; give "
                "calibrate=images, a tensor or a DataLoader"
            )
        else:
            settings = replace(settings, calibrated=images.count)
        check_watch(progress, time_limit)
        device = next(model.parameters()).device.type if any(True for _ in model.parameters()) else "cpu"
        settings.on(device)  # raises before the model runs
        if device == "meta":
            raise ValueError("model: its tensors are on the device 'meta'; there are no values to select by")
        what, is_one = _LAYER_TYPES[settings.layers]
        if not any(is_one(module) for module in model.modules()):
            raise ValueError(f"model: expected a network with {what}, found none in it")

        traced = example_inputs
        if not isinstance(traced, ModelTrace):
            traced = trace(model, example_inputs, progress=progress, time_limit=time_limit)
        traced.check(model)
        return certifying(
            traced,
            settings.layers,
            lambda graph, certified: _decide(
                graph, settings.on(device, graph.widest()), certified, images, progress, shards
            ),
            time_limit,
        )


def _decide(
    graph: ChannelGraph,
    settings: Settings,
    certified: Certified,
    images: Images | None,
    progress: Progress | None,
    shards: Shards | None,
) -> PruningPlan:
    """Return the plan that `settings` make of `graph`; groups that fail the certificate are left out.

    The values are those of `graph`, or in `shards`.
    """
    graph = in_scope(without_ignored(graph, settings.ignore), settings.scope)
    producers = [producer for group in graph.groups for producer in group.producers]
    names = _scales(graph) if settings.rule == "bn" else []
    if shards is None:
        tensors = named_tensors(graph.model)
        kernels = {producer.name: producer.kernel for producer in producers}
        scales = require_finite(kernels, {name: tensors[name] for name in names})
    else:
        shards.require_finite(producers)
        scales = require_finite({}, {name: shards.whole(name) for name in names})
    seen = None if images is None else Reconstruction(graph, images, progress)
    if settings.target[0] == "latency":  # which times networks, so they have to be right before
        graph = certified(graph, graph.probe())
    while True:
        given = settings.target[0] == "keep"
        if given:
            counts, notes = counts_from_keep(graph, settings.target[1]), list[str]()
            rest = [group for group in graph.groups if group.name not in counts]
            graph = graph.without(rest, "not named in keep")
        else:
            graph = rankable(graph, settings.rule)
        picks = {} if seen is None else seen.of_all(graph)
        if not given:
            gains = {name: one.gains for name, one in picks.items() if settings.rule == "error"}
            counts, notes = counts_of(graph, settings, scales, progress=progress, gains=gains)
        orders = {name: one.order for name, one in picks.items() if settings.criterion == "covariance"}
        if shards is None:
            selections = select_groups(graph, counts, settings, progress, orders)
        else:
            selections = shards.select_groups(graph, counts, settings, progress)
        kept = _kept(graph, selections)
        if progress is not None:
            progress("certify", 0, 1)
        right = certified(graph, kept)
        if progress is not None:
            progress("certify", 1, 1)
        if right is graph:
            break
        graph = right
    found = zip(graph.groups, selections, strict=True)
    coverage = {group.name: s.coverage for group, s in found if s.coverage is not None}
    shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(graph.model).items()}
    plan = plan_of_atoms(graph, kept, coverage, shapes, settings.to_dict())
    if seen is not None:
        notes += seen.notes(graph)
    return replace(plan, notes=(*plan.notes, *notes, *landing_notes(graph, settings, kept)))


def _scales(graph: ChannelGraph) -> list[str]:
    """Return the names of the BatchNorm scales behind the groups of `graph`."""
    return list(dict.fromkeys(name for group in graph.groups for name, *_ in group.gammas))


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
    """Return the plan that keeps `kept` [atoms] of a model whose tensors had `shapes`.

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
