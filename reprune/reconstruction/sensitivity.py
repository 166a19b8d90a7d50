"""Measure how much the outputs of a network change with what its layers compute."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..compensation.calls import Call
from ..compensation.images import Images
from ..compensation.modes import Intercepting
from ..compensation.patches import batch_dimension
from ..compensation.paused import Inputs
from ..compensation.sequence import Event

IMAGES = 32
"""Images that gradients are computed on, at most."""
_COPIES = 4
"""What a pass with gradients holds, in units of the outputs of all layers: norms and activations follow."""


def sensitivities(
    model: nn.Module,
    images: Images,
    how: tuple[torch.device, torch.dtype | None],
    events: list[Event],
    memory: float,
) -> dict[str, float] | str:
    """Return {weight: what an error of its outputs is worth}, or why that cannot be known.

    It is the sum of squares, over all outputs of the network for one image, of what adding 1 to an output
    channel of the layer changes, to first order: at all positions and in all uses of the weight; the mean
    over channels and images. So an error counts as if it were the same at all positions of an image, which is
    nearer to what happens than that they have nothing to do with each other. Of the Jacobian J of a constant,
    the mean of (v' J)^2 over vectors v of random signs is the sum of squares of its columns (Hutchinson's
    estimator), so one backward pass is enough.

    Args:
        model: The network, a copy that may change, in evaluation mode.
        images: Of which the first `IMAGES` are used.
        how: The device and the type of the images.
        events: The operations of the network.
        memory: How many times the outputs of all `events` may be held.
    """
    names = {event.name for event in events if not event.is_norm}
    probes = {event.name: event.shape for event in reversed(events)}
    count = min(images.count, IMAGES)
    bounds = [*range(0, count - 1, max(2, int(memory / _COPIES))), count]  # never one image alone
    sums, drawn = dict.fromkeys(names, 0.0), torch.Generator().manual_seed(0)
    try:
        with torch.enable_grad(), _needing_gradients(model):
            for start, stop in pairwise(bounds):
                seen = _gradients(model, images.inputs(start, stop, *how), names, drawn)
                for name in names:
                    mine = [(call, gradient) for call, gradient in seen if call.name == name]
                    sums[name] += _of_constants(mine, probes[name], stop - start)
    except (RuntimeError, TypeError) as error:  # such as an operation without a derivative
        return next(iter(str(error).splitlines()), "") or type(error).__name__
    if not all(map(math.isfinite, sums.values())):
        return "they are infinite or NaN"
    return {name: total / count for name, total in sums.items()}


@contextlib.contextmanager
def _needing_gradients(model: nn.Module) -> Iterator[None]:
    """Let all outputs of layers have gradients inside the block, frozen layers too."""
    needed = {x: x.requires_grad for x in model.parameters() if x.is_floating_point()}
    for x in needed:
        x.requires_grad_(True)
    try:
        yield
    finally:
        for x, before in needed.items():
            x.requires_grad_(before)


def _gradients(
    model: nn.Module, inputs: Inputs, names: set[str], drawn: torch.Generator
) -> list[tuple[Call, Tensor]]:
    """Return the calls of a pass, with the gradient of each one's output."""
    seen: list[tuple[Call, Tensor]] = []

    def answer(call: Call) -> Tensor:
        out = call.run({})
        if call.name not in names:
            return out
        seen.append((call, out))
        return out.clone()  # what follows may work in place

    args, kwargs = inputs
    with Intercepting(model, answer):
        made = model(*args, **kwargs)
    outputs = [x for x in tree_leaves(made) if isinstance(x, Tensor) and x.requires_grad]
    signs = [torch.randint(2, x.shape, generator=drawn).to(x) * 2 - 1 for x in outputs]
    gradients = torch.autograd.grad(outputs, [out for _, out in seen], signs)
    return [(call, gradient) for (call, _), gradient in zip(seen, gradients, strict=True)]


def _of_constants(seen: list[tuple[Call, Tensor]], probe: tuple[int, ...], images: int) -> float:
    """Return the squared gradient of a constant in all calls of a weight, summed over `images`.

    It is a mean over the channels of the output.
    """
    total: Tensor | None = None
    for call, gradient in seen:
        if gradient.dim() < 2 + call.dimensions:
            gradient = gradient[None]
        elif not call.dimensions:
            gradient = gradient.movedim(batch_dimension(call, probe), 0)
        channels = gradient.shape[call.channels]
        gradient = gradient.double().movedim(call.channels, -1)
        entries = images if gradient.shape[0] % images == 0 else 1
        of_images = gradient.reshape(entries, -1, channels).sum(1)
        total = of_images if total is None else total + of_images
    return 0.0 if total is None else float(total.square().sum() / total.shape[1])
