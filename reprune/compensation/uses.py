"""Run both networks for weights that are used several times: one solution has to suit all uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from .calls import Call
from .modes import Intercepting
from .pair import Pair


def all_uses(
    pair: Pair, name: str, values: Mapping[str, Tensor], wanted: Callable[[Call], Tensor]
) -> Iterator[tuple[Call, Tensor, Tensor, range]]:
    """Yield each use of the tensor `name`.

    This is the small network's call, `wanted(the dense one's)`, the small one's output, and the images. The
    small network runs as it has been fitted so far, `values` {name: tensor}, on some images at a time.
    """
    size = min(pair.capacities()[0], pair.images.count)
    bounds = [*range(0, pair.images.count - 1, size), pair.images.count]  # never one image alone
    for start, stop in pairwise(bounds):
        expected: list[Tensor] = []
        given: list[tuple[Call, Tensor]] = []

        def dense_answer(call: Call, expected: list[Tensor] = expected) -> Tensor:
            if call.name == name:
                expected.append(wanted(call).clone())  # what follows may work in place
            return call.run({})

        def small_answer(call: Call, given: list[tuple[Call, Tensor]] = given) -> Tensor:
            out = call.run(values)
            if call.name == name:
                kept = {**call.arguments, "input": call.input.clone()}
                given.append((Call(call.func, kept, call.names), out.clone()))
            return out

        for model, answer in ((pair.dense, dense_answer), (pair.small, small_answer)):
            _run(model, answer, pair, start, stop)
        for (call, out), target in zip(given, expected, strict=True):
            yield call, target, out, range(start, stop)


def _run(model: nn.Module, answer: Callable[[Call], Tensor], pair: Pair, start: int, stop: int) -> None:
    args, kwargs = pair.inputs(start, stop)
    with torch.no_grad(), Intercepting(model, answer):
        model(*args, **kwargs)
