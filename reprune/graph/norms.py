"""Record the widths of norms without tensors, which a trace has to observe."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..aliases import Ints
from ..modules.norms import NormOfFewerChannels
from ..modules.sizes import NORMS
from ..modules.wrappers import named_modules
from .propagation import Propagation


@contextlib.contextmanager
def norms_seen(model: nn.Module, known: Propagation) -> Iterator[dict[str, Ints]]:
    """Record {norm without tensors: labels of its input channels} of what runs in the block.

    A norm over channels without a weight that runs in several places keeps them: it has one width.
    """
    seen: dict[str, Ints] = {}

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if inputs and isinstance(inputs[0], Tensor):
                labels = known.state(inputs[0]).dims[_channel_dim(module, inputs[0])]
                if isinstance(labels, np.ndarray):
                    first = seen.setdefault(name, labels)
                    if isinstance(module, NormOfFewerChannels) and not np.array_equal(first, labels):
                        for ids in (first, labels):
                            known.constraints.pin(ids, "meets others in a norm that runs in several places")

        return hook

    handles = [
        module.register_forward_pre_hook(look(name))
        for name, module in named_modules(model).items()
        if isinstance(module, (*NORMS, NormOfFewerChannels)) and not [*module.parameters(), *module.buffers()]
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _channel_dim(module: nn.Module, x: Tensor) -> int:
    if isinstance(module, NormOfFewerChannels):
        return module.norm_dim
    unbatched = isinstance(module, nn.modules.instancenorm._InstanceNorm)
    return x.dim() - module._get_no_batch_dim() if unbatched else 1  # type: ignore[operator]  # no annotation
