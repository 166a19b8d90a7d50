"""Find NaN and infinite values before an event selects by them or spreads them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..clustering.backends.tensors import together
from ..modules.sharded import local
from ..modules.slicing import named_tensors
from ..modules.wrappers import named_parameters
from ..optimizers import Keeper
from .tracked import Tracked


def not_finite(tracked: Tracked) -> dict[tuple[str, str], str]:
    """Return {(kind, tensor): what it is, in words} of all that have NaN or infinite values.

    Parameters, buffers and the optimizer's state of parameters are checked completely. Gradients are not,
    because mixed precision leaves infinite ones behind when it skips a step.
    """
    looked: dict[tuple[str, str], tuple[str, Tensor]] = {}
    for prefix, model in tracked.models():
        where = "" if prefix == "model" else f" in copies[{prefix.removeprefix('copy')}]"
        for name, tensor in named_tensors(model).items():
            module, _, last = name.rpartition(".")
            of = f"the {last} of {module}" if module else f"its {last}"
            looked[prefix, name] = (f"model: {of}{where}", tensor)
    for entry in Keeper(tracked.optimizer).entries(named_parameters(tracked.model)):
        looked["state", entry.key] = (f"optimizer: state {entry.kind!r} of {entry.name}", entry.value)
    held = {key: (said, local(t)) for key, (said, t) in looked.items()}  # of a sharded one, a part
    tensors = {key: (said, t) for key, (said, t) in held.items() if _can_be_looked_at(t)}
    # NaN passes through minima and maxima, which take no memory
    flags = [torch.isfinite(torch.stack(torch.aminmax(t))).all() for _, t in tensors.values()]
    found = zip(tensors.items(), together(flags), strict=True)
    return {key: said for (key, (said, _)), flag in found if not flag}


def check_finite(tracked: Tracked, odd: Mapping[tuple[str, str], str]) -> None:
    """Raise `ValueError` that names a tensor which is not finite, unless it is one of `odd`."""
    for key, said in not_finite(tracked).items():
        if key not in odd:
            raise ValueError(f"{said} has NaN or infinite values; nothing was changed")


def _can_be_looked_at(tensor: Tensor) -> bool:
    plain = type(tensor) in (Tensor, torch.nn.Parameter) and tensor.layout == torch.strided
    return plain and tensor.is_floating_point() and tensor.element_size() > 1 and tensor.numel() > 0
