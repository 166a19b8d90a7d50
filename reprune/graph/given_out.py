"""Take an operation that writes its result to a given tensor for the plain one and a copy.

`torch.add(a, b, out=x)` is `x.copy_(a + b)`, where an empty `x` first takes the size of the result. So no
rule has to know this form.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

from torch import Tensor

from .memory import Memory
from .preserving import Preserved
from .propagation import Propagation
from .state import FREE, Call, operation_of


class Trace(Protocol):
    """What of a tracer is needed here; inside its block operations are followed."""

    known: Propagation
    preserved: Preserved
    memory: Memory

    def __enter__(self) -> Any: ...

    def __exit__(self, *error: Any) -> Any: ...


_OF_NEW_TENSORS = frozenset(("dtype", "layout", "device", "pin_memory"))
"""What `torch.ones` is told where no tensor is given."""


@functools.cache
def plain_form(func: Any) -> Any:
    """Return the overload that returns what `func` writes to given tensors, or None if there is none."""
    wanted = [(a.name, str(a.type)) for a in func._schema.arguments if not a.is_out]
    packet = func._overloadpacket
    for overload in (getattr(packet, name) for name in packet.overloads()):
        arguments = [(a.name, str(a.type)) for a in overload._schema.arguments]
        less = [(name, kind) for name, kind in arguments if name not in _OF_NEW_TENSORS]
        if wanted in (arguments, less) and not operation_of(overload).written:
            return overload
    return None


def plainly(call: Call, plain: Any, trace: Trace) -> Any:
    """Run the `plain` form of `call` under `trace` and return the given tensors, to which its results go."""
    given: list[Tensor] = [call[name] for name in call.operation.outs]
    kwargs = {name: value for name, value in call.kwargs.items() if name not in call.operation.outs}
    if operation_of(plain).arguments.keys() >= _OF_NEW_TENSORS:
        kwargs = {"dtype": given[0].dtype, "device": given[0].device, **kwargs}
    with trace:
        results = plain(*call.args, **kwargs)
    for x, result in zip(given, (results,) if isinstance(results, Tensor) else results, strict=True):
        if x.shape != result.shape:
            if x.numel():  # PyTorch warns, and will not do it any more
                trace.known.pin(result, f"is written to a tensor of another size by {call.func}")
            _resize(x, result, trace)
        with trace:
            x.copy_(result)
    return given[0] if len(given) == 1 else tuple(given)


def _resize(x: Tensor, result: Tensor, trace: Trace) -> None:
    """Give `x` the shape of `result`, and no values yet."""
    trace.preserved.keep(x, trace.memory.made)
    trace.known.resized(x, "shares its memory with a tensor that takes the size of a result")
    x.resize_(result.shape)
    if x.untyped_storage().nbytes() >= result.untyped_storage().nbytes():
        x.as_strided_(result.shape, result.stride())
    trace.known.set(x, [FREE if size > 1 else None for size in x.shape], is_activation=False)
    trace.known.made_of(x, ())
