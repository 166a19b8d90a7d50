"""Run a model once while the rule of every ATen operation propagates labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ..aliases import Ints
from ..modules.copying import fresh
from ..modules.held import modules_of, tensors_in
from ..modules.norms import NormOfFewerChannels, normalised
from ..modules.wrappers import eagerly
from .attributes import Attributes
from .computed import computed
from .constants import Constants
from .functions import attention, batch_norm, linear
from .given import Given
from .given_out import plain_form, plainly
from .labels import LABEL
from .memory import Memory
from .modes import asking_for_mode, trains_alike
from .moves import Moves
from .norm_operation import NORMALISED
from .outputs import pin_outputs
from .preserving import Preserved
from .propagation import Key, Propagation
from .rules import Rule, has_rule, is_movement, rule_of
from .rules_attention import FUSED, attention_flops
from .rules_zeros import note_zeros
from .signature import signature
from .state import Call, State, storage_of
from .steps import Step
from .watch import current
from .without_values import NeedsValuesError, WithoutValues, on_real_device

_ATTENTION = tuple(getattr(torch.ops.aten, name) for name in sorted(FUSED) if hasattr(torch.ops.aten, name))


class UntraceableError(ValueError):
    """Raised for an operation that a trace cannot follow; it names the operation."""


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows labels through a forward pass.

    `labels` are those of the model's tensors: fresh ones at first, and those that were kept when a sliced
    model is traced again for its certificate, with the `guesses` of the first trace. With a `device`, the
    one where the values are, a model on "meta" is traced without them. `turned` are guesses of an earlier
    trace of the full model that turned out wrong, and what to guess instead.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        labels: Mapping[Key, Ints],
        preserved: Preserved,
        guesses: Sequence[int] = (),
        device: torch.device | None = None,
        turned: Mapping[tuple[int, int], int] = MappingProxyType({}),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.known = Propagation(tensors, labels, guesses, turned)
        self.preserved = preserved
        self.without_values = None if device is None else WithoutValues(device, preserved)
        self.steps: list[Step] = []
        """The steps of the run; a sliced model must repeat them."""
        self.costs: list[tuple[int, list[Ints]]] = []
        """FLOPs of each counted operation, and the dimensions that they are proportional to."""
        self.data_dependent = False
        self.counting = True
        self.asks_zeros = True
        """Whether a norm over channels may ask what is zero wherever a channel is masked."""
        self.reached: Any = None
        """The operation that ran last."""
        self.at: list[State] = []
        """States of the tensors of the last call on activations, including its outputs once it has run."""
        self.memory = Memory()
        self._moves = Moves()
        self._rules: dict[int, tuple[Rule, Any]] = {}
        """By the id of each operation: its rule, and the formula of its FLOPs if it is counted."""
        self._own = {id(x): name for name, x in tensors.items()}
        self.constants = Constants(self.known, self._own)
        self._follows = bool(labels)
        self._watch = current()
        # Imported here, as it imports Triton.
        from torch.utils.flop_counter import flop_registry

        # PyTorch's table lacks the CPU's attention, which without values runs as matrix products that count;
        # older versions do not count keys that serve several heads
        self._flops = {**flop_registry, **dict.fromkeys(_ATTENTION, attention_flops)}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = Call(func, args, kwargs or {})
        operation, own = call.operation, self._own
        rule, count = self._rules.get(id(operation)) or self._looked_up(call)
        if operation.has_parts and not has_rule(call):
            with self:  # as it does without inference mode
                return func.decompose(*args, **call.kwargs)
        if operation.outs and (plain := plain_form(func)) is not None:
            return plainly(call, plain, self)
        self.reached, tensors = func, call.tensors()
        states = [self.known.state(x) for x in tensors]
        is_activation = any(state.is_activation for state in states)
        if is_activation:
            self.at = states
        constants = self.constants.are(call, states)
        met = self.constants.met(call, states, constants) if True in constants else ()
        if self.without_values is None:
            self.preserved.before(call, self.memory.made)
            call.out = func(*args, **call.kwargs)
        else:
            call.out = self.without_values(call, self.memory.made)
        if operation.asks_data and any(state.is_activation for state in states[-1:]):
            self.data_dependent = True  # its last tensor, for a gather the last index, comes from the data
        touched: list[Ints] = []
        flowing: list[Ints] = []
        for state in states:
            for dim in state.dims:
                if isinstance(dim, np.ndarray):
                    touched.append(dim)
                    if state.is_activation:
                        flowing.append(dim)
        if self.known.unread:
            for x in tensors:
                self.known.read(storage_of(x))
        what, united = signature(call, self.known), len(self.known.constraints.edges)
        self.known.calls = len(self.steps)
        try:
            scale = rule(self.known, call, is_activation) or []
        except Exception as error:
            raise UntraceableError(
                f"model: channels cannot be followed through {func}: its rule fails with "
                f"{type(error).__name__}: {error}.  reprune.graph.register_rule can give it another"
            ) from error
        if self.asks_zeros:
            note_zeros(self.known, call, states)
        for x in call.outputs():
            self.known.made_of(x, tensors)
        self.constants.note(call, constants)
        to_compare = touched or not self._follows
        moves = what is None and bool(tensors) and is_movement(call)
        self.steps.append(
            Step(
                operation=operation.text,
                what=(*(what or (call.name,)), met) if met else what,
                reads=tuple([own[id(x)] for x in tensors if id(x) in own]),
                touched=touched,
                flowing=flowing,
                edges=self.known.constraints.edges[united:],
                computed=computed(call, states, self.known) if to_compare and what is not None else None,
                moved=self._moved(call) if moves else None,
            )
        )
        if moves and not operation.in_place:
            self._moves.check(self.known, call, tensors[0], states[0], united)
        for x, state in zip(tensors, states, strict=True):
            if not state.is_activation and id(x) not in own:
                written = self.memory.content(x)
                if written is not None and written.is_activation:
                    self.known.pin_state(written, f"is read by another name in {func}")
        self.memory.note(call, self.known)
        if is_activation:
            self.at = states + [self.known.state(x) for x in call.outputs()]
        if self._watch is not None:
            self._watch.call(func, tensors, self._own.keys())
        if self.counting and count is not None:
            self.costs.append((flops_of(call, count), scale))
        return call.out

    def _moved(self, call: Call) -> Given | None:
        outs = call.outputs()
        return Given(outs[0].shape, outs[0].dtype, self.known.state(outs[0])) if outs else None

    def _looked_up(self, call: Call) -> tuple[Rule, Any]:
        found = rule_of(call), self._flops.get(getattr(call.func, "_overloadpacket", None))
        self._rules[id(call.operation)] = found
        return found

    def returns(self, output: Any) -> None:
        """Note the constants that the model returns, as a call that both runs must have."""
        found = [x for x in tensors_in(output) if self.known.knows(x) or self.memory.content(x) is None]
        constants = self.constants.returned(found)
        if constants:
            self.steps.append(Step("the output", ("the output", constants), (), [], [], []))

    def leaves(self, x: Tensor, how: str) -> None:
        """Pin the values of `x`, which leave PyTorch for an unknown use."""
        if self.without_values is not None and not self.without_values.has_values(x):
            raise NeedsValuesError(f"it reads values by {how}")
        self.known.pin(x, f"leaves PyTorch by {how}")
        self.constants.left(x)
        self.known.read(storage_of(x))
        self.preserved.keep(x, self.memory.made)  # numpy may write to it


_BY_SHAPES = frozenset(("convolution", "mm", "addmm", "bmm", "baddbmm"))


def flops_of(call: Call, count: Any) -> int:
    """Return the FLOPs of `call` by the formula `count` of PyTorch's counter."""
    formula = getattr(count, "__wrapped__", None)
    if formula is None or call.name not in _BY_SHAPES:
        return int(count(*call.args, **call.kwargs, out_val=call.out))
    # What is around the formula turns tensors into shapes, at any depth, which takes longer than all else
    shapes = [x.shape if isinstance(x, Tensor) else x for x in call.args]
    named = {name: x.shape if isinstance(x, Tensor) else x for name, x in call.kwargs.items()}
    return int(formula(*shapes, **named, out_shape=call.out.shape))


_LEAVING = frozenset((Tensor.numpy, Tensor.tolist, Tensor.__array__, Tensor.__dlpack__))
_DATA: Any = Tensor.data
_GET, _SET = _DATA.__get__, _DATA.__set__
_MAKING = frozenset((torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor))


_SEEN = frozenset((*_LEAVING, *_MAKING, _GET, _SET))


class _Functions(TorchFunctionMode):
    """Sees what is no ATen operation, and changes five functions."""

    def __init__(self, trace: Tracer) -> None:
        super().__init__()
        self._trace = trace

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, known = kwargs or {}, self._trace.known
        if func is F.batch_norm:
            return batch_norm(*args, **kwargs)
        if func is F.linear:
            return linear(*args, **kwargs)
        if func is F.scaled_dot_product_attention and self._trace.without_values is not None:
            return attention(*args, **kwargs)
        if func is normalised:
            return NORMALISED(*args, **kwargs)
        if func is torch._shape_as_tensor:  # it writes numbers to an empty tensor, unseen
            return torch.tensor(args[0].shape)
        if func not in _SEEN:
            return func(*args, **kwargs)
        if func in _LEAVING:
            self._trace.leaves(args[0], f"Tensor.{func.__name__}")
        if func in _MAKING:
            for x in tree_iter((args[-1:], kwargs)):
                if isinstance(x, Tensor):
                    self._trace.leaves(x, func.__name__)
            if self._trace.without_values is not None:
                return on_real_device(func, args, kwargs, self._trace.without_values.device)
        out = func(*args, **kwargs)
        if func == _GET:
            known.alias(out, args[0])
        elif func == _SET:
            known.alias(*args)
        return out


def run(
    model: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]], trace: Tracer, twice: bool = False
) -> Ran:
    """Trace `model`, a disposable copy, in evaluation mode and then in training mode.

    Auxiliary heads run in training mode only; both passes form one trace. The pass in training mode is left
    out where it would be the same again: nothing asked for the mode but dropout and the like.

    The first pass can change the next one: it fills a cache, initialises a layer or counts. Then a second
    pass in evaluation mode follows (and with `twice` in any case).
    """
    model.eval()
    modules = modules_of(model)
    trace.asks_zeros = any(isinstance(module, NormOfFewerChannels) for module in modules)
    before, written = Attributes(modules), trace.preserved.written
    try:
        with asking_for_mode() as asked:
            _pass(model, example, trace)
            trace.counting = False
            twice = twice or trace.preserved.written > written or before.are_others()
            if twice:
                _pass(model, example, trace)
    except (UntraceableError, TimeoutError, NeedsValuesError):
        raise
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise UntraceableError(
            f"model: its forward pass on the example inputs fails with {type(error).__name__}: {first} "
            f"({_where(trace)})"
        ) from error
    if trains_alike(model, asked.values()):
        return Ran(twice)
    model.train()
    for module in modules_of(model):
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()  # its statistics must not change, and one example may be too few for new ones
    try:
        _pass(model, example, trace)
    except (TimeoutError, NeedsValuesError):
        raise
    except Exception as error:
        return Ran(twice, f"{type(error).__name__}: {error}")
    return Ran(twice)


@dataclass(frozen=True)
class Ran:
    """How a run ended."""

    twice: bool
    """Whether there were two passes in evaluation mode."""
    problem: str | None = None
    """Why the pass in training mode failed."""


def _where(trace: Tracer) -> str:
    return f"the last operation was {trace.reached}" if trace.reached else "before its first operation"


def _pass(model: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]], trace: Tracer) -> None:
    args, kwargs = fresh(example)
    for x in tensors_in(args, kwargs):
        if not trace.known.knows(x):
            trace.known.set(x, [None] * x.dim(), is_activation=True)
    trace.preserved.begin_pass()
    if (watch := current()) is not None:
        watch.begin_pass()
    with eagerly(), trace, _Functions(trace):
        output = model(*args, **kwargs)
    pin_outputs(trace.known, trace.memory, output, model)
    trace.returns(output)


def fresh_labels(tensors: Mapping[str, Tensor]) -> tuple[dict[Key, Ints], int]:
    """Return labels for every position of every dimension longer than 1, and their number."""
    labels: dict[Key, Ints] = {}
    count = 0
    for name, tensor in tensors.items():
        for dim, size in enumerate(tensor.shape):
            if size > 1:
                labels[name, dim] = np.arange(count, count + size, dtype=LABEL)
                count += size
    return labels, count
