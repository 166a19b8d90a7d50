"""Tell of the operations of a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..modules.slicing import named_tensors
from .calls import Call, call_of

Other = Callable[[Any, tuple[Any, ...], Mapping[str, Any], Any], None]
"""Is told of every operation that is not intercepted, with its output."""


class Intercepting(TorchFunctionMode):
    """Gives each call with a weight of `model` to `answer`, which returns its output.

    It acts on the thread that enters it. What an operation calls itself is not seen: attention that is
    computed as a whole stays whole.
    """

    def __init__(
        self, model: nn.Module, answer: Callable[[Call], Tensor], other: Other | None = None
    ) -> None:
        super().__init__()
        self._names = {id(tensor): name for name, tensor in named_tensors(model).items()}
        self._answer, self._other = answer, other

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        call = call_of(func, args, kwargs, self._names)
        if call is not None:
            return self._answer(call)
        out = func(*args, **kwargs)
        if self._other is not None:
            self._other(func, args, kwargs, out)
        return out


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put `models` into evaluation mode inside the block."""
    modes = {module: module.training for model in models for module in model.modules()}
    for module in modes:
        module.training = False  # not by eval(), which a module may have changed
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
