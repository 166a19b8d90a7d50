"""Follow labels through fused attention: whole heads may leave."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..aliases import Ints
from .propagation import Propagation
from .state import FREE, Call, Dim

FUSED = frozenset(
    (
        "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_flash_attention "
        "_scaled_dot_product_cudnn_attention _scaled_dot_product_fused_attention_overrideable "
        "_scaled_dot_product_attention_math_for_mps"
    ).split()
)
"""Attention in one operation; in parts (`_scaled_dot_product_attention_math`) other rules follow it."""


def mask_of(call: Call) -> Tensor | None:
    """Return what is added to the products of queries and keys, or says where there are some."""
    name = next((name for name in ("attn_mask", "attn_bias") if call.has(name)), None)
    mask: Tensor | None = None if name is None else call[name]
    return mask


def attention(known: Propagation, call: Call, is_activation: bool) -> list[Ints]:
    """Unite batch and heads of query, key, value [.., H, N, D] and mask [.., H or 1, N or 1, S or 1].

    A key or value that has fewer heads serves as many neighbouring heads of the query each.
    """
    query, key, value, mask = call["query"], call["key"], call["value"], mask_of(call)
    for x, what in ((query, "query"), (key, "key"), (value, "value")):
        known.pin(x, f"is a number of each {what} in an attention", [x.dim() - 1])
        known.pin(x, "is a place in a sequence of an attention", [x.dim() - 2])
    dims: list[Dim] = list(known.state(query).dims[:-2])
    for x in (key, value):
        for k in range(3, 1 + min(query.dim(), x.dim())):
            other = _shared(known.state(x).dims[-k], x.shape[-k], query.shape[-k])
            if x.shape[-k] > 1 or query.shape[-k] == 1:
                dims[-k + 2] = known.unite(dims[-k + 2], other, "meets fixed heads in an attention")
    if mask is not None:
        known.pin(mask, "is a place in a sequence of an attention", [mask.dim() - 2, mask.dim() - 1])
        for k in range(3, 1 + min(query.dim(), mask.dim())):
            if mask.shape[-k] > 1:
                other, why = known.state(mask).dims[-k], "meets a fixed mask of an attention"
                dims[-k + 2] = met = known.unite(dims[-k + 2], other, why)
                if other is FREE and isinstance(met, np.ndarray):
                    known.take_size(mask, -k, met, "is masked with other heads by one constant")
    first, *others = call.outputs()
    known.set(first, [*dims, None, None], is_activation)
    for out in others:  # for the way back
        known.set(out, [None] * out.dim(), is_activation)
    heads = [labels for labels in dims if isinstance(labels, np.ndarray)]
    known.heads += heads
    return heads


def _shared(dim: Dim, heads: int, served: int) -> Dim:
    """Return what a dimension of `heads` carries when each head serves as many of those that are `served`."""
    if dim is None or dim is FREE or heads == served:
        return dim
    spread: Ints = np.repeat(dim, served // heads)
    return spread


def attention_flops(query: Any, key: Any, value: Any, *rest: Any, out_val: Any = None, **named: Any) -> int:
    """Count the two matrix products of an attention: queries by keys, and weights by values."""
    *batch, tokens, width = query.shape
    each = int(2 * tokens * key.shape[-2] * (width + value.shape[-1]))
    return int(np.prod(batch, dtype=np.int64)) * each


ON_CPU = frozenset(("scaled_dot_product_attention",))
"""Those that run on the CPU, where calls are checked; for others :func:`by_formula` stands in.

`_scaled_dot_product_flash_attention_for_cpu` is not among them: that of torch 2.6 is wrong where keys have
fewer heads than queries, for which PyTorch itself takes another kernel when there are values.
"""


def by_formula(call: Call) -> Tensor:
    """Return what the attention `call` gives, without its dropout: softmax(Q K^T * scale + mask) V."""
    query, key, value, mask = call["query"], call["key"], call["value"], mask_of(call)
    if key.dim() > 2:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    scale = call["scale"]
    weights = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
    if call["is_causal"]:
        mask = torch.ones(weights.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        weights = weights.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else weights + mask
    found: Tensor = weights.softmax(-1) @ value
    return found
