"""The tensors that are cut together: a model's, its copies', the optimizer's state.  And who may touch
them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..graph import named_tensors
from ..surgery import can_be_sliced, held_by

WRAPPERS = ("DistributedDataParallel", "DataParallel", "OptimizedModule", "AveragedModel")


def bare(model: nn.Module) -> tuple[nn.Module, set[str]]:
    """The user's own module inside DDP, torch.compile and AveragedModel, and the names of what was around
    it."""
    around: set[str] = set()
    while (kind := type(model).__name__) in WRAPPERS:
        around.add(kind)
        inner = model._orig_mod if kind == "OptimizedModule" else model.module
        assert isinstance(inner, nn.Module)
        model = inner
    return model, around


class Members:
    """A model, its optimizer and copies of the model (EMA), seen as tensors by the model's names."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, copies: Sequence[nn.Module]
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.copies = tuple(copies)
        self.sizes = {name: tuple(t.shape) for name, t in named_tensors(model).items()}
        """{tensor: its full shape}."""
        for name, parameter in model.named_parameters():
            if type(parameter.data).__name__ == "DTensor" or type(parameter).__name__ == "FlatParameter":
                raise TypeError(
                    f"model: {name} is sharded over processes (FSDP), which Pruner cannot cut or mask; "
                    f"train with "
                    "DistributedDataParallel, or make the pruner's plan with reprune.make_plan before "
                    "sharding"
                )
        for k, copy in enumerate(self.copies):
            found = {name: tuple(t.shape) for name, t in named_tensors(copy).items()}
            if found != self.sizes:
                raise ValueError(
                    f"copies: number {k} has other tensors than the model; expected copies of it"
                )

    def models(self) -> list[tuple[str, nn.Module]]:
        """[(prefix of its keys, model or copy)]."""
        return [("model", self.model), *((f"copy{k}", copy) for k, copy in enumerate(self.copies))]

    def states(self, names: Sequence[str], every: bool) -> Iterator[tuple[str, str, Tensor]]:
        """(key, name, tensor) of the optimizer's states of the shapes of the parameters `names`.

        ``every``: raise ``ValueError`` for a state of another shape, which cannot be cut.
        """
        tensors = named_tensors(self.model)
        for name in names:
            for kind, value in self.optimizer.state.get(tensors[name], {}).items():
                fits = isinstance(value, Tensor) and value.shape == tensors[name].shape
                if can_be_sliced(name, kind, value, tensors[name]) if every else fits:
                    yield f"state/{kind}/{name}", name, value

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise ``ValueError`` unless every model has tensors of these shapes and the optimizer holds those
        that learn."""
        for prefix, model in self.models():
            found = {name: tuple(t.shape) for name, t in named_tensors(model).items()}
            for name in sorted(found.keys() | shapes.keys()):
                if found.get(name) != shapes.get(name):
                    what = "the model" if prefix == "model" else "a copy of it"
                    raise ValueError(
                        f"model: {what} was changed behind the pruner's back: {name} should have shape "
                        f"{shapes.get(name, 'none: it was not there')} and has "
                        f"{found.get(name, 'none: it is gone')}; undo that, or make a new Pruner"
                    )
        held = held_by(self.optimizer)
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and id(parameter) not in held:
                raise ValueError(
                    f"optimizer: expected one that holds the parameters of the model that learn, and "
                    f"{name} is not "
                    "among its own; make it from model.parameters() before the pruner, and make no other"
                )


def shape_of(full: tuple[int, ...], where: Mapping[int, Any]) -> tuple[int, ...]:
    """The shape of the positions `where` of a tensor of shape `full`."""
    return tuple(where[dim].size if dim in where else size for dim, size in enumerate(full))
