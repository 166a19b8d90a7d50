"""Running a model once while every ATen operation says what it means for labels."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from .known import Key, Known
from .labels import LABEL, Ints
from .rules import rule_of
from .signature import signature
from .state import Call, State
from .steps import Step
from .watch import current

_ATTENTION = tuple(
    getattr(torch.ops.aten, name)
    for name in (
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_fused_attention_overrideable",
        "_scaled_dot_product_attention_math_for_mps",
    )
    if hasattr(torch.ops.aten, name)
)


class UntraceableError(ValueError):
    """An operation that a trace cannot get through, by name."""


class Trace(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows labels through a forward pass.

    `labels` are those of the model's tensors: fresh ones at first, and those that were kept when a sliced
    model is traced again for its certificate, with the `choices` of the first trace.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], labels: Mapping[Key, Ints], choices: Sequence[int] = ()
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = Known(tensors, labels, choices)
        self.steps: list[Step] = []
        """What ran: a sliced model must run the same."""
        self.costs: list[tuple[int, list[Ints]]] = []
        """FLOPs of each counted operation, and the dimensions that they are proportional to."""
        self.data_dependent = False
        self.counting = True
        self.reached: Any = None
        """The operation that ran last."""
        self.at: list[State] = []
        """What is known of the tensors of the last call on activations; of its outputs too, once it ran."""
        self._own = {id(x): name for name, x in tensors.items()}
        self._watch = current()
        # Imported here, as it imports Triton.
        from torch.utils.flop_counter import flop_registry, sdpa_flop

        # PyTorch's table lacks the CPU's attention, which without values runs as matrix products that count
        self._flops = {**dict.fromkeys(_ATTENTION, sdpa_flop), **flop_registry}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.reached = func
        tensors = [x for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)]
        states = [self.known.state(x) for x in tensors]
        flows = any(state.flows for state in states)
        if flows:
            self.at = states
        out = func(*args, **kwargs)
        call = Call(func, args, kwargs, out)
        if torch.Tag.dynamic_output_shape in func.tags and any(state.flows for state in states[-1:]):
            self.data_dependent = True  # its last tensor, for a gather the last index, comes from the data
        touched = [(dim, s.flows) for s in states for dim in s.dims if isinstance(dim, np.ndarray)]
        what, united = signature(call, self.known), len(self.known.ledger.edges)
        try:
            scale = rule_of(call)(self.known, call, flows) or []
        except Exception as error:
            raise UntraceableError(
                f"model: channels cannot be followed through {func}: its rule fails with "
                f"{type(error).__name__}: {error}.  reprune.graph.register_rule can give it another"
            ) from error
        self.steps.append(
            Step(
                operation=str(func),
                what=what,
                reads=tuple(self._own[id(x)] for x in tensors if id(x) in self._own),
                touched=[dim for dim, _ in touched],
                flowing=[dim for dim, flows in touched if flows],
                edges=self.known.ledger.edges[united:],
            )
        )
        if flows:
            self.at = states + [self.known.state(x) for x in call.outputs()]
        if self._watch is not None:
            self._watch.call(func, tensors, self._own.keys())
        count = self._flops.get(getattr(func, "_overloadpacket", None))
        if count is not None and self.counting:
            self.costs.append((int(count(*args, **kwargs, out_val=out)), scale))
        return out


class _EmptyBatchNorm(TorchFunctionMode):
    """PyTorch normalises an empty tensor by other operations, which take the numbers of the first channel:
    whether a detector finds nothing in the example must not matter, so it gets the usual one."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return (_batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.batch_norm`; of an empty tensor by the operation of all others."""
    if training or input.numel():
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return torch.native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)[0]


def run(model: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]], trace: Trace) -> str | None:
    """Trace `model` in evaluation mode, then in training mode (auxiliary heads), under one trace.

    Returns why the pass in training mode could not be made, if it could not.  The model is left as it was.
    """
    args, kwargs = example
    for x in tree_iter((args, kwargs)):
        if isinstance(x, Tensor):
            trace.known.set(x, [None] * x.dim(), flows=True)
    with left_as_it_was(model), torch.no_grad():
        model.eval()
        try:
            _pass(model, args, kwargs, trace)
        except (UntraceableError, TimeoutError):
            raise
        except Exception as error:
            first = next(iter(str(error).splitlines()), "")
            raise UntraceableError(
                f"model: its forward pass on the example inputs fails with {type(error).__name__}: {first} "
                f"({_where(trace)})"
            ) from error
        trace.counting = False
        model.train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()  # its statistics must not change, and one example may be too few for new ones
        try:
            _pass(model, args, kwargs, trace)
        except TimeoutError:
            raise
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


def _where(trace: Trace) -> str:
    return f"the last operation was {trace.reached}" if trace.reached else "before its first operation"


def _pass(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], trace: Trace) -> None:
    torch.manual_seed(0)
    if (watch := current()) is not None:
        watch.begin_pass()
    with trace, _EmptyBatchNorm():
        output = model(*args, **kwargs)
    if not isinstance(output, (Tensor, tuple, list, dict)):
        output = getattr(output, "__dict__", output)
    for x in tree_iter(output):
        if isinstance(x, Tensor):
            trace.known.pin(x, "is an output of the model")


@contextlib.contextmanager
def left_as_it_was(model: nn.Module) -> Iterator[None]:
    """Whatever is run in between, modes, buffers and random numbers are afterwards as they were before."""
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
                if not buffer.is_meta and not torch.equal(buffer, before):
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
                labels[name, dim] = np.arange(count, count + size, dtype=LABEL)
                count += size
    return labels, count
