"""Track the tensors that are sliced together: of the model, its copies and the optimizer's state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..modules.sharded import Piece, settle
from ..modules.slicing import named_tensors
from ..modules.wrappers import named_parameters
from ..optimizers import Entry, Keeper, check_parameters, check_references, check_states, state_obstacle


class Tracked:
    """A model, its optimizer and copies of the model (EMA), seen as tensors by the model's names."""

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, copies: Sequence[nn.Module]
    ) -> None:
        self.model = model
        settle(model)
        self.sizes = {name: tuple(t.shape) for name, t in named_tensors(model).items()}
        """{tensor: its full shape}."""
        self.pieces = {name: Piece.of(t) for name, t in named_tensors(model).items()}
        """{tensor: what this process holds of it at full size}."""
        self._dtypes = {name: t.dtype for name, t in named_tensors(model).items()}
        self.replace(optimizer, copies)

    def settle(self) -> None:
        """See that the parameters of sharded models are what the optimizer holds: their parts."""
        for _, model in self.models():
            settle(model)

    def replace(self, optimizer: torch.optim.Optimizer, copies: Sequence[nn.Module]) -> None:
        """Continue with another optimizer and other copies of the model as it is now.

        Raises `ValueError` for a copy with other tensors.
        """
        sizes = {name: t.shape for name, t in named_tensors(self.model).items()}
        for k, copy in enumerate(copies):
            if {name: t.shape for name, t in named_tensors(copy).items()} != sizes:
                raise ValueError(
                    f"copies: number {k} has other tensors than the model; expected copies of it"
                )
        self.optimizer, self.copies = optimizer, tuple(copies)

    def models(self) -> list[tuple[str, nn.Module]]:
        """Return [(prefix of its keys, model or copy)]."""
        return [("model", self.model), *((f"copy{k}", copy) for k, copy in enumerate(self.copies))]

    def parameters(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the model's parameters among the tensors `names`."""
        own = named_parameters(self.model)
        return {name: own[name] for name in names if name in own}

    def states(self, names: Iterable[str], every: bool) -> list[Entry]:
        """Return the optimizer's states of `names` that have one number for each of theirs.

        Without `every`, it returns only states that represent zero by 0, unlike the codes of 8-bit states.
        """
        entries = Keeper(self.optimizer).entries(self.parameters(names))
        return [e for e in entries if every or e.value.is_floating_point() or e.value.is_complex()]

    def check_references(self, names: Iterable[str]) -> None:
        """Raise `ValueError` if the optimizer could never train smaller parameters for `names`."""
        check_references(Keeper(self.optimizer), self.parameters(names))

    def check_hooks(self, names: Iterable[str]) -> None:
        """Raise `ValueError` if something attached to the parameters `names` cannot follow."""
        check_parameters(self.parameters(names))

    def check_states(self, names: Iterable[str]) -> None:
        """Raise `ValueError` if the optimizer's state of the parameters `names` cannot be sliced."""
        check_states(Keeper(self.optimizer), self.parameters(names))

    def state_obstacle(self, names: Iterable[str]) -> str:
        """Return why the optimizer's state of `names` cannot be sliced, or "" if it can."""
        return state_obstacle(Keeper(self.optimizer), self.parameters(names))

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise `ValueError` unless all models have these shapes and the optimizer holds what learns."""
        for prefix, model in self.models():
            found = {name: tuple(t.shape) for name, t in named_tensors(model).items()}
            for name in sorted(found.keys() | shapes.keys()):
                if found.get(name) != shapes.get(name):
                    what = "the model" if prefix == "model" else "a copy of it"
                    raise ValueError(
                        f"model: {what} was changed outside the pruner: {name} should have shape "
                        f"{shapes.get(name, 'none: it was not there')} and has "
                        f"{found.get(name, 'none: it is gone')}; undo that, or make a new Pruner"
                    )
        for name, tensor in named_tensors(self.model).items():
            if tensor.dtype != self._dtypes[name]:
                raise ValueError(
                    f"model: it was changed outside the pruner: {name} should have dtype "
                    f"{self._dtypes[name]} and has {tensor.dtype}; convert it before you make the Pruner"
                )
        held = Keeper(self.optimizer).held()
        for name, parameter in named_parameters(self.model).items():
            if parameter.requires_grad and id(parameter) not in held:
                raise ValueError(
                    f"optimizer: expected one that holds the parameters of the model that learn, and "
                    f"{name} is not "
                    "among its own; make it from model.parameters() before the pruner, and make no other"
                )
