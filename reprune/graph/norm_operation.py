"""Make a norm over channels one operation, so that a trace follows it by one rule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..modules.norms import normalised


def _contiguous(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, kind: str, dim: int, full_width: int, eps: float
) -> Tensor:
    """Run it with strides that do not depend on how many channels there are, as other operations ask them."""
    out = normalised(x, weight, bias, kind, dim, full_width, eps)
    return out.movedim(dim, -1).contiguous().movedim(-1, dim)


_LIBRARY: Any = torch.library.Library("reprune", "FRAGMENT")  # type: ignore[no-untyped-call]
_LIBRARY.define(
    "normalised(Tensor x, Tensor? weight, Tensor? bias, str kind, int dim, int full_width, float eps)"
    " -> Tensor"
)
_LIBRARY.impl("normalised", _contiguous, "CompositeExplicitAutograd")

NORMALISED: Any = torch.ops.reprune.normalised.default
"""The operation that runs :func:`reprune.modules.norms.normalised`."""
