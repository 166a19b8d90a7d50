"""Select from the layers of a sharded model: the kernels of a few groups of channels are whole at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..aliases import Counts, Progress
from ..clustering.problem import LayerProblem
from ..distributed import gathered, meet, rank_and_size
from ..graph import ChannelGraph, Producer, output_first
from ..layer_problems import Chosen, choose, not_finite, problem_tables
from ..modules.sharded import local, settle, whole
from ..modules.wrappers import named_parameters
from ..targets import Settings


class Shards:
    """The parameters of a sharded model, for a plan that all processes make together.

    Raises `ValueError` for `settings` whose plans need a model that can be run, and `TypeError` if something
    else than `fully_shard` has sharded it.
    """

    def __init__(self, model: nn.Module, settings: Settings) -> None:
        asked = "latency" if settings.target[0] == "latency" else "calibrate" if settings.by_images else ""
        if asked:
            raise ValueError(
                f"{asked}: the parameters of the model are sharded over processes, and for this it would be "
                "run by each alone; use another target or rule, or make the plan before the model is sharded"
            )
        settle(model)
        self._parameters = named_parameters(model)

    def whole(self, name: str) -> Tensor:
        """Return a whole parameter; collective."""
        return whole(self._parameters[name])

    def require_finite(self, producers: Sequence[Producer]) -> None:
        """Raise `ValueError` on all processes if a part of a kernel is not finite; collective."""
        mine = [self._is_finite(producer) for producer in producers]
        meet()
        for producer, finite in zip(producers, map(all, zip(*gathered(mine), strict=True)), strict=True):
            if not finite:
                raise not_finite(producer.name)

    def _is_finite(self, producer: Producer) -> bool:
        part = local(self._parameters[producer.weight])
        return part.numel() == 0 or bool(torch.isfinite(torch.stack(torch.aminmax(part))).all())

    def select_groups(
        self, graph: ChannelGraph, counts: Counts, settings: Settings, progress: Progress | None
    ) -> list[Chosen]:
        """Run steps 2 and 3 for every group: each process for one, then for the next. Collective."""
        rank, size = rank_and_size()
        chosen: list[Chosen] = []
        for begin in range(0, len(graph.groups), size):
            mine = []
            for owner, group in enumerate(graph.groups[begin : begin + size]):
                kernels = [(self._kernel(producer), producer.rows) for producer in group.producers]
                if owner == rank:
                    tables = problem_tables(kernels, settings, group.heads)
                    mine = [LayerProblem(group.name, tables, counts[group.name])]
                del kernels
            found = choose(mine, settings, settings.seed)
            meet()
            chosen += [one for part in gathered(found) for one in part]
            if progress is not None:
                progress("select", len(chosen), len(graph.groups))
        return chosen

    def _kernel(self, producer: Producer) -> Tensor:
        kernel = output_first(self.whole(producer.weight), producer.transposed, producer.groups)
        assert kernel.shape == producer.kernel.shape, producer.weight
        return kernel
