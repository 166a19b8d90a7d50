"""Running a model once while every ATen operation says what it means for labels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.weak import WeakTensorKeyDictionary

from .labels import Ints, Ledger
from .rules import rule_of
from .signature import signature
from .state import FREE, Call, Convolution, Dim, State

Key = tuple[str, int]
"""A dimension of a parameter or buffer: (name, dim)."""


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows labels through a forward pass.

    `labels` are those of the model's tensors: fresh ones at first, and the atoms that were kept when a sliced
    model is traced again for its certificate.
    """

    def __init__(self, tensors: Mapping[str, Tensor], labels: Mapping[Key, Ints]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ledger = Ledger()
        self.log: list[tuple[Any, ...]] = []
        """What ran, with its scalars: a sliced model must run the same."""
        self.costs: list[tuple[int, list[Ints]]] = []
        """FLOPs of each counted operation, and the dimensions that they are proportional to."""
        self.convolutions: dict[int, Convolution] = {}
        """By the first label of the kernels' output dimension."""
        self.data_dependent = False
        self.counting = True
        # Imported here, as it imports Triton.
        from torch.utils.flop_counter import flop_registry

        self._flops = flop_registry
        self._states: Any = WeakTensorKeyDictionary()
        self._bases: Any = WeakTensorKeyDictionary()
        self._viewed: Any = WeakTensorKeyDictionary()
        for name, tensor in tensors.items():
            dims: list[Dim] = [labels.get((name, dim)) for dim in range(tensor.dim())]
            self._states[tensor] = State(tuple(dims), flows=False)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        call = Call(func, args, kwargs, out)
        states = [self.state(x) for x in call.tensors()]
        flows = any(state.flows for state in states)
        if torch.Tag.dynamic_output_shape in func.tags and any(state.flows for state in states[-1:]):
            self.data_dependent = True  # its last tensor, for a gather the last index, comes from the data
        if (what := signature(call, self)) is not None:
            self.log.append((any(state.labelled() for state in states), *what))
        scale = rule_of(call)(self, call, flows) or []
        count = self._flops.get(getattr(func, "_overloadpacket", None))
        if count is not None and self.counting:
            self.costs.append((int(count(*args, **kwargs, out_val=out)), scale))
        return out

    # What rules read and say

    def state(self, x: Tensor) -> State:
        """What is known of `x`; a tensor that was never seen is a constant."""
        known: State | None = self._states.get(x)
        return known if known is not None else State((None,) * x.dim(), flows=False)

    def set(self, x: Tensor, dims: list[Dim], flows: bool) -> None:
        self._states[x] = State(tuple(dims), flows)

    def viewed(self, view: Tensor, of: Tensor) -> None:
        """`view` shares memory with `of`."""
        self._bases[view] = of
        self._viewed[of] = True

    def write(self, x: Tensor, dims: list[Dim], flows: bool, why: str) -> None:
        """`x` was written in place.  A blank tensor adopts what is written, unless other views show parts
        of it."""
        known = self.state(x)
        shared = x in self._bases or x in self._viewed
        for k, (old, new) in enumerate(zip(known.dims, dims, strict=True)):
            if old is FREE and shared and new is not FREE:
                if new is not None:
                    self.ledger.pin(new, f"{why} writes into a part of a tensor")
                dims[k] = None
        self.set(x, dims, flows or known.flows)
        base: Tensor | None = self._bases.get(x)
        while base is not None:  # a write into a part makes the whole vary
            was = self.state(base)
            self.set(base, [None if d is FREE else d for d in was.dims], flows or was.flows)
            base = self._bases.get(base)

    def pin(self, x: Tensor, why: str, dims: list[int] | None = None) -> None:
        """All labels of `x`, or those along `dims`, must live."""
        state = self.state(x)
        for k in state.labelled() if dims is None else dims:
            labels = state.labels(k)
            if labels is not None:
                self.ledger.pin(labels, why)

    def unite(self, a: Dim, b: Dim, why: str) -> Dim:
        """Two dimensions of one size meet; what the result carries.  A fixed one pins the other."""
        if a is None or a is FREE or b is None or b is FREE:
            for one, other in ((a, b), (b, a)):
                if one is None and other is not None and other is not FREE:
                    self.ledger.pin(other, why)
            return b if a is FREE or (a is None and b is not FREE) else a
        self.ledger.unite(a, b, why)
        return a

    def convolved(self, kernels: Dim, convolution: Convolution) -> None:
        """Remember a convolution whose kernels have an output dimension that can be cut."""
        if kernels is not None and kernels is not FREE:
            self.convolutions.setdefault(int(kernels[0]), convolution)


def run(model: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]], trace: Trace) -> str | None:
    """Trace `model` in evaluation mode, then in training mode (auxiliary heads), under one trace.

    Returns why the pass in training mode could not be made, if it could not.  The model is left as it was.
    """
    args, kwargs = example
    for x in tree_iter((args, kwargs)):
        if isinstance(x, Tensor):
            trace.set(x, [None] * x.dim(), flows=True)
    with _left_as_it_was(model), torch.no_grad():
        model.eval()
        _pass(model, args, kwargs, trace)
        trace.counting = False
        model.train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()  # its statistics must not change, and one example may be too few for new ones
        try:
            _pass(model, args, kwargs, trace)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


def _pass(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> None:
    torch.manual_seed(0)
    with trace:
        output = model(*args, **kwargs)
    if not isinstance(output, (Tensor, tuple, list, dict)):
        output = getattr(output, "__dict__", output)
    for x in tree_iter(output):
        if isinstance(x, Tensor):
            trace.pin(x, "is an output of the model")


@contextlib.contextmanager
def _left_as_it_was(model: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        with torch.no_grad():
            for buffer, before in buffers:
                if not torch.equal(buffer, before):
                    buffer.copy_(before)
        for module, mode in training.items():
            module.training = mode


def fresh_labels(tensors: Mapping[str, Tensor]) -> tuple[dict[Key, Ints], int]:
    """A label for every position of every dimension longer than 1, and how many there are."""
    labels: dict[Key, Ints] = {}
    count = 0
    for name, tensor in tensors.items():
        for dim, size in enumerate(tensor.shape):
            if size > 1:
                labels[name, dim] = np.arange(count, count + size)
                count += size
    return labels, count
