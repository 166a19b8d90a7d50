"""Remember, in every module, the plan that pruned it and its own name in that plan.

So a file can be written of any network that a pruned module has become a part of, and of a part alone. The
record is text, which copies and pickles carry and which needs no reprune to be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ..modules.slicing import named_tensors
from ..modules.wrappers import named_modules
from .check import fingerprint_of
from .pruning_plan import PruningPlan

_MARK = "_reprune_plan"


def remember_plan(model: nn.Module, plan: PruningPlan, first: PruningPlan | None) -> None:
    """Record on every module that `plan`, after `first` if there was one, made `model`."""
    text = (plan if first is None else plan.composed_with(first)).to_json()
    cut = {id(tensor): name for name, tensor in named_tensors(model).items()}
    for name, module in named_modules(model).items():
        own = {**module._parameters, **module._buffers}
        tensors = {local: cut[id(tensor)] for local, tensor in own.items() if id(tensor) in cut}
        module.__dict__[_MARK] = {"plan": text, "name": name, "tensors": tensors}


def forget_plan(model: nn.Module) -> None:
    """Remove the records of plans from `model`."""
    for module in model.modules():
        module.__dict__.pop(_MARK, None)


def plan_of(model: nn.Module) -> PruningPlan | None:
    """Return the plan that made `model` from the full model, or None.

    It is composed of the plans of its parts, and of the model's part of a larger network's plan.

    Raises `ValueError` if a tensor no longer has the size that its plan gave it.
    """
    places: dict[str, list[_Place]] = {}
    for name, module in named_modules(model).items():
        mark = module.__dict__.get(_MARK)
        if mark is not None:
            places.setdefault(mark["plan"], []).append(_Place(name, mark["name"], mark["tensors"]))
    if not places:
        return None
    tensors = named_tensors(model)
    plans = {text: PruningPlan.from_json(text) for text in places}
    (text, plan), *others = plans.items()
    if others or not _is_whole(plan, places[text]):
        plan = _together([_part(plans[text], places[text], tensors) for text in places], tensors)
    _check_sizes(plan, tensors)
    return _counted(plan, tensors)


@dataclass(frozen=True)
class _Place:
    """A module: its name here, its name in its plan, and {a tensor of its own: the name in the plan}."""

    here: str
    there: str
    tensors: Mapping[str, str]

    def tensor(self, local: str) -> str:
        """Return the name, here, of one of its own tensors."""
        return f"{self.here}.{local}" if self.here else local


def _is_whole(plan: PruningPlan, places: Sequence[_Place]) -> bool:
    """Return whether `places` are all that `plan` pruned, under the same names."""
    there = {name for place in places for name in place.tensors.values()}
    return plan.slices.keys() <= there and all(place.here == place.there for place in places)


def _part(plan: PruningPlan, places: Sequence[_Place], tensors: Mapping[str, Tensor]) -> PruningPlan:
    """Return what `plan` says of the modules in `places`, under their names here."""
    of = {
        place.tensor(local): there
        for place in places
        for local, there in place.tensors.items()
        if place.tensor(local) in tensors and there in plan.slices
    }
    return replace(
        plan,
        keep={place.here: plan.keep[place.there] for place in places if place.there in plan.keep},
        channels={place.here: plan.channels[place.there] for place in places if place.there in plan.channels},
        skipped={place.here: plan.skipped[place.there] for place in places if place.there in plan.skipped},
        widths={place.here: plan.widths[place.there] for place in places if place.there in plan.widths},
        coverage={place.here: plan.coverage[place.there] for place in places if place.there in plan.coverage},
        slices={here: plan.slices[there] for here, there in of.items()},
        shapes={here: plan.shapes[there] for here, there in of.items()},
    )


def _together(plans: list[PruningPlan], tensors: Mapping[str, Tensor]) -> PruningPlan:
    """Combine the plans of a network's parts into one plan of the network with `tensors`."""
    slices = {name: dims for plan in plans for name, dims in plan.slices.items()}
    shapes = {name: shape for plan in plans for name, shape in plan.shapes.items()}
    note = "put together from the plans of parts, or a part of one: FLOPs are those of the pruned networks"
    return PruningPlan(
        keep={name: kept for plan in plans for name, kept in plan.keep.items()},
        channels={name: count for plan in plans for name, count in plan.channels.items()},
        skipped={name: why for plan in plans for name, why in plan.skipped.items()},
        flops=(sum(plan.flops[0] for plan in plans), sum(plan.flops[1] for plan in plans)),
        params=plans[0].params,  # counted anew in the end
        slices=slices,
        shapes=shapes,
        widths={name: count for plan in plans for name, count in plan.widths.items()},
        coverage={name: share for plan in plans for name, share in plan.coverage.items()},
        settings=plans[0].settings if len(plans) == 1 else {},
        notes=tuple(dict.fromkeys((*(note for plan in plans for note in plan.notes), note))),
    )


def _counted(plan: PruningPlan, tensors: Mapping[str, Tensor]) -> PruningPlan:
    """Return `plan` with today's parameter count: layers may have been replaced since."""
    own = {name: t for name, t in tensors.items() if isinstance(t, nn.Parameter)}
    full = {name: plan.shapes.get(name, tuple(t.shape)) for name, t in own.items()}
    params = (sum(map(math.prod, full.values())), sum(t.numel() for t in own.values()))
    return replace(plan, params=params, fingerprint=fingerprint_of(full))


def _check_sizes(plan: PruningPlan, tensors: Mapping[str, Tensor]) -> None:
    for name, dims in plan.slices.items():
        size = tuple(len(dims[k]) if k in dims else full for k, full in enumerate(plan.shapes[name]))
        if tuple(tensors[name].shape) != size:
            raise ValueError(
                f"model: {name} was cut to {size} by its plan and now has shape "
                f"{tuple(tensors[name].shape)}, so it is not known what it was cut from; put a new layer "
                "there instead of a new tensor"
            )
