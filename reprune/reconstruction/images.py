"""Run a network on images, and add up what the consumers of its channels take."""

from __future__ import annotations

import functools
import math
import operator
import zlib
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from ..aliases import Ints, Progress
from ..compensation.calls import Call
from ..compensation.images import Images
from ..compensation.modes import Intercepting, evaluating
from ..compensation.patches import batch_dimension
from ..compensation.sequence import observed
from ..graph import ChannelGraph, ChannelGroup, preserving
from ..modules.copying import whole_copy
from ..modules.heads import for_any_heads
from ..modules.rng import generators, restore
from ..modules.wrappers import eagerly
from .consumers import Consumers
from .greedy import Picks, picks
from .moments import Moments, drawn, positions
from .sensitivity import sensitivities

PROBED = 4
"""Images of the run that shows which operations there are."""
MEMORY = 2**28
"""Bytes of activations for which images run together."""
_ROWS, _ROWS_PER_INPUT = 16384, 8
"""Positions of a consumer: at least so many if there are as many, and so many for each channel."""


class Reconstruction:
    """What each channel of a group explains of the rest, for the consumers of the group."""

    def __init__(self, graph: ChannelGraph, images: Images, progress: Progress | None = None) -> None:
        """Run the model of `graph` on `images`, in evaluation mode; it is left as it was.

        Raises `ValueError` if it fails on them, or makes NaN or infinite values of them.
        """
        self._uses = _Uses(Consumers(graph), images)
        self._worths = _run(graph, images, self._uses, progress)
        self._found: dict[str, Picks | None] = {}

    def of_all(self, graph: ChannelGraph) -> dict[str, Picks]:
        """Return {group: its picks} of the groups that have any; raise `ValueError` if none has."""
        picked = {group.name: found for group in graph.groups if (found := self.picks(group)) is not None}
        if not picked:
            raise ValueError(
                "calibrate: no convolution or Linear layer that takes the channels of a layer that can be "
                "pruned was seen; use rule='uniform' and criterion='reprune'"
            )
        return picked

    def notes(self, graph: ChannelGraph) -> list[str]:
        """Return notes on gradients that are not known, and on the groups that have no picks."""
        notes = []
        if isinstance(self._worths, str):
            notes.append(
                "what an error of a layer changes at the outputs of the network is not known, as gradients "
                f"cannot be computed ({self._worths}): all count alike, in units of what the layers compute"
            )
        unseen = [p.name for group in graph.groups if self.picks(group) is None for p in group.producers]
        if not unseen:
            return notes
        some = ", ".join(unseen[:3]) + (f" and {len(unseen) - 3} more" if len(unseen) > 3 else "")
        return [
            *notes,
            f"no convolution or Linear layer that takes all channels of {some} was seen on the images: they "
            "are chosen by criterion='reprune', and where rule='error' counts, by rule='uniform'",
        ]

    def picks(self, group: ChannelGroup) -> Picks | None:
        """Return all channels of `group` in the order in which they explain most.

        None if some of its channels go to no convolution or Linear layer that was seen.
        """
        if group.name not in self._found:
            found = self._uses.of(group.name, self._worths if isinstance(self._worths, dict) else None)
            self._found[group.name] = picks(*found) if found[0] else None
        return self._found[group.name]


class _Uses:
    """What was seen of each weight that takes channels of a group."""

    def __init__(self, consumers: Consumers, images: Images) -> None:
        self._consumers, self._images, self._name = consumers, images.count, images.name
        self._tables: dict[str, dict[str, Ints]] = {}
        self._moments: dict[tuple[str, str], Moments] = {}
        self._orders: dict[tuple[str, int], Tensor] = {}

    def add(self, call: Call, probe: tuple[int, ...], batch: range) -> None:
        """Add the inputs of `call` on the images `batch`; `probe` is the shape of its input on a few."""
        if call.is_norm:
            return
        if call.name not in self._tables:
            self._tables[call.name] = dict(self._consumers.of(call))
        if not self._tables[call.name]:
            return
        x = call.input
        if x.dim() < 2 + call.dimensions:
            x = x[None]
        elif not call.dimensions:
            x = x.movedim(batch_dimension(call, probe), 0)
        x = positions(x, 1 if call.dimensions else -1)  # [entries, positions, I]
        rows = max(_ROWS, _ROWS_PER_INPUT * x.shape[2])
        entries = max(1, x.shape[0] * self._images // len(batch))  # on all images
        each = min(x.shape[1], max(1, math.ceil(rows / entries)))
        first = x.shape[0] * batch.start // len(batch)
        image = batch.start + torch.arange(x.shape[0]) * len(batch) // x.shape[0]
        for part in drawn(x, each, first, self._order(call.name, x.shape[1])):
            if not bool(torch.isfinite(part).all()):
                layer = call.name.rpartition(".")[0] or call.name
                raise ValueError(
                    f"{self._name}: expected images on which all is finite; {layer} takes NaN or inf"
                )
            for group, table in self._tables[call.name].items():
                key = call.name, group
                if key not in self._moments:
                    self._moments[key] = Moments(table, call)
                of_entries = part.view(x.shape[0], -1, part.shape[1])
                for half in (0, 1):
                    mine = (image % 2 == half).to(part.device)
                    self._moments[key].add(of_entries[mine].flatten(0, 1), half)

    def of(
        self, group: str, worths: Mapping[str, float] | None
    ) -> tuple[list[tuple[Tensor, Tensor]], list[float]]:
        """Return (C, H) of each consumer of a group, and its worth; nothing if one of its channels has none.

        `worths` {weight: what a squared error of 1 is worth}; where that is not known, all are worth 1 in
        units of their variance.
        """
        names = [name for name, mine in self._moments if mine == group]
        tables = [self._tables[name][group] for name in names]
        if not names or not functools.reduce(operator.or_, [(table >= 0).any(1) for table in tables]).all():
            return [], []
        moments = [self._moments[name, group] for name in names]
        device = moments[0].weights.device
        return [(one.shrunk().to(device), one.weights.to(device)) for one in moments], [
            1.0 if worths is None else worths[name] * one.variance()
            for name, one in zip(names, moments, strict=True)
        ]

    def _order(self, name: str, count: int) -> Tensor:
        """Return the order in which the positions of an input are drawn."""
        if (name, count) not in self._orders:
            seeded = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            self._orders[name, count] = torch.randperm(count, generator=seeded)
        return self._orders[name, count]


def _run(
    graph: ChannelGraph, images: Images, uses: _Uses, progress: Progress | None
) -> dict[str, float] | str:
    """Fill `uses`, and return the sensitivities, or why there are none."""
    states = generators()  # of all GPUs, which manual_seed seeds; `preserving` keeps the model's alone
    try:
        with preserving(graph.model) as preserved, eagerly():
            preserved.begin_pass()
            torch.manual_seed(0)  # what a pass draws is the same each time
            model = whole_copy(graph.model)  # whose buffers and attributes may change
            if not graph.traced.own_classes:
                model = for_any_heads(model)
            with evaluating(model):
                return _run_all(model, images, uses, progress)
    finally:
        restore(states)


def _run_all(
    model: nn.Module, images: Images, uses: _Uses, progress: Progress | None
) -> dict[str, float] | str:
    tensors = [*model.parameters(), *model.buffers()]
    kinds = {x.dtype for x in tensors if x.is_floating_point()}
    how = tensors[0].device, kinds.pop() if len(kinds) == 1 else None
    try:
        count = min(PROBED, images.count)
        events = observed(model, images.inputs(0, count, *how)).events
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"{images.name}: the network fails on the images with {type(error).__name__}: {first}; it was "
            f"given {images.shown()}"
        ) from error
    most = max((event.bytes + event.output for event in events), default=1)
    size = max(2, MEMORY * count // max(most, 1))
    probes = {event.name: event.shape for event in reversed(events)}
    bounds = [*range(0, images.count - 1, size), images.count]  # never one image alone
    for start, stop in pairwise(bounds):
        if progress is not None:
            progress("calibrate", start, images.count)

        def answer(call: Call, batch: range = range(start, stop)) -> Tensor:
            uses.add(call, probes.get(call.name, ()), batch)
            return call.run({})

        args, kwargs = images.inputs(start, stop, *how)
        with Intercepting(model, answer):
            model(*args, **kwargs)
    held = sum(event.output for event in events) / count
    found = sensitivities(model, images, how, events, MEMORY / max(held, 1))
    if progress is not None:
        progress("calibrate", images.count, images.count)
    return found
