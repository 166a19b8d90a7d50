"""Trace a model once, for any number of plans."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor, nn

from ..aliases import Progress
from ..arguments import number, shown
from ..modules.sharded import is_sharded
from ..modules.slicing import named_tensors
from ..modules.twin import twin_of
from ..modules.wrappers import unwrap
from .blame import NotRepeatableError
from .certificate import AtomMask
from .channel_graph import ChannelGraph
from .collecting import collecting_later
from .groups import find_groups
from .state import Convolution, storage_of
from .traced import Example, TracedModel, as_example, trace_model
from .watch import Watch, current, watching

T = TypeVar("T")
Certified = Callable[[ChannelGraph, AtomMask], ChannelGraph]

_SECONDS = "a positive number of seconds or None"


@dataclass(frozen=True, eq=False)
class ModelTrace:
    """What one run of a model shows of its channels; :func:`make_plan` takes it in place of example inputs.

    It belongs to one model as it was: :meth:`check` tells whether that has changed.
    """

    model: nn.Module
    """The model; of a sharded one its plain twin, without values."""
    example: Example
    traced: TracedModel = field(repr=False)
    convolutions: Mapping[int, Convolution] = field(repr=False)
    """Those that ran, by the first label of their kernels."""
    tensors: Mapping[str, tuple[Tensor, int | None, int]] = field(repr=False)
    """{parameter or buffer: (itself, its memory, the version of its values)} when the model ran."""
    sharded: nn.Module | None = None
    """The sharded model that was given, or None."""

    def graph(self, layers: str = "conv") -> ChannelGraph:
        """Return the groups of channels that can be pruned, not certified yet; `layers`: see `make_plan`."""
        traced = self.traced
        found = find_groups(self.model, self.convolutions, traced.labels, traced.atoms, layers, traced.heads)
        groups, skipped, channels = found
        return ChannelGraph(self.model, self.example, traced, tuple(groups), skipped, channels)

    def check(self, model: nn.Module) -> None:
        """Raise `ValueError` unless this is the trace of `model`, whose tensors are still where they were.

        Their values may be others, but where a weight is computed from them: that was computed in the trace.
        """
        if unwrap(model)[0] is not (self.model if self.sharded is None else self.sharded):
            raise ValueError(
                "example_inputs: expected inputs of the model, or its own trace; got the trace of another "
                "model; call reprune.trace(model, inputs)"
            )
        now = named_tensors(self.model)
        memory = {where for _, where, _ in self.tensors.values()}
        computed = any(storage_of(ran.kernel) not in memory for ran in self.convolutions.values())
        changed = [name for name in now if name not in self.tensors] + [
            name
            for name, (tensor, where, version) in self.tensors.items()
            if now.get(name) is not tensor
            or storage_of(tensor) != where
            or (computed and _version(tensor) != version)
        ]
        if changed:
            raise ValueError(
                f"example_inputs: the model has changed since it was traced ({changed[0]}); call "
                "reprune.trace(model, inputs) again"
            )

    def again(self) -> ModelTrace:
        """Return a new trace of the same model on the same inputs."""
        return _trace(self.model if self.sharded is None else self.sharded, self.example)


def trace(
    model: nn.Module,
    example_inputs: Any,
    *,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> ModelTrace:
    """Run `model` once and follow its channels; any number of plans can be made of the result.

    The model is left as it was. :func:`make_plan` and :func:`prune` trace by themselves where they are given
    inputs; this saves time where several targets, rules or seeds are tried. A model that `fully_shard` has
    sharded is not run itself, but a plain twin without values.

    Args:
        model: Any eager model. It is run, in evaluation and training mode, and left as it was.
        example_inputs: What the model takes, on its device: a tensor, a tuple of positional or a dictionary
            of keyword arguments.
        progress: A function that is called as `progress("trace", done, total)`. Default: none.
        time_limit: Seconds after which tracing gives up. Default: no limit.

    Returns:
        The trace. It holds the model, not a copy, and is refused once the model's tensors are others.

    Raises:
        ValueError: The model fails on the inputs, or an operation cannot be followed (the message names it).
        TypeError: An argument has a wrong type.
        TimeoutError: Tracing took longer than `time_limit`.

    Examples:
        >>> import torch, reprune
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))
        >>> traced = reprune.trace(model, torch.randn(2, 3, 8, 8))
        >>> plans = [reprune.make_plan(model, traced, sparsity=s, rule="uniform") for s in (0.25, 0.5, 0.75)]
        >>> [len(plan.keep["0"]) for plan in plans]
        [12, 8, 4]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a torch.nn.Module; got {shown(model)}")
    check_watch(progress, time_limit)
    model, example = unwrap(model)[0], as_example(example_inputs)
    with watching(Watch(progress, time_limit, len(named_tensors(model)))):
        return _trace(model, example)


def check_watch(progress: object, time_limit: object) -> None:
    """Raise an error that names the argument unless tracing can be watched so."""
    if time_limit is not None and not number(time_limit, "time_limit", _SECONDS) > 0:
        raise ValueError(f"time_limit: expected {_SECONDS}; got {time_limit!r}")
    if progress is not None and not callable(progress):
        raise TypeError(f"progress: expected a function or None; got {shown(progress)}")


def build_graph(
    model: nn.Module,
    example_inputs: Any,
    progress: Progress | None = None,
    layers: str = "conv",
    time_limit: float | None = None,
) -> ChannelGraph:
    """Find the channel groups of `model` by running it on `example_inputs`, and certify them on a trial.

    In place of the inputs there may be the :class:`ModelTrace` of `model`, which is not run on them again.
    `layers` says which layers' output channels can be pruned: "conv", "linear" or "all".

    Groups that the certificate rejects are skipped with its reason. `progress("trace", done, total)` is
    called whenever the passes reach tensors of the model. The model is left as it was; it may be on the
    device "meta", where nothing is computed.

    Raises `ValueError` that names the operation where the model fails or cannot be followed, and
    `TimeoutError` after `time_limit` seconds.
    """
    known = example_inputs if isinstance(example_inputs, ModelTrace) else None
    if known is not None:
        known.check(model)
    with watching(Watch(progress, time_limit, len(named_tensors(model)), passes=4)):
        traced = known or _trace(model, as_example(example_inputs))
        return certifying(traced, layers, lambda graph, certified: certified(graph, graph.probe()))


def certifying(
    trace: ModelTrace,
    layers: str,
    decide: Callable[[ChannelGraph, Certified], T],
    time_limit: float | None = None,
) -> T:
    """Return `decide(graph, certified)`, with the groups of `trace` and a function that certifies a choice.

    `certified(graph, kept)` returns the graph without the groups in which `kept` is wrong, after at most
    `time_limit` seconds. Where the model does not run alike twice everything is done once again, on a new
    trace: the first run may have filled a cache outside of the model.
    """

    def first(graph: ChannelGraph, kept: AtomMask) -> ChannelGraph:
        with _limited(time_limit), collecting_later():
            return graph.certified_if_repeatable(kept)

    def second(graph: ChannelGraph, kept: AtomMask) -> ChannelGraph:
        with _limited(time_limit), collecting_later():
            return graph.certified(kept)

    try:
        return decide(trace.graph(layers), first)
    except NotRepeatableError:
        return decide(trace.again().graph(layers), second)


def _limited(seconds: float | None) -> contextlib.AbstractContextManager[None]:
    """Stop passes after `seconds`, unless there is a limit already."""
    return contextlib.nullcontext() if current() is not None else watching(Watch(None, seconds, 0))


def _trace(model: nn.Module, example: Example) -> ModelTrace:
    sharded = model if is_sharded(model) else None
    if sharded is not None:
        model = twin_of(sharded)
    with collecting_later():
        traced, run = trace_model(model, example)
    tensors = {name: (t, storage_of(t), _version(t)) for name, t in named_tensors(model).items()}
    return ModelTrace(model, example, traced, run.known.convolutions, tensors, sharded)


def _version(x: Tensor) -> int:
    """Return how often values were written to `x`; -1 where nobody counts."""
    return -1 if x.is_inference() else int(x._version)
