"""Run functions of PyTorch by operations that do not depend on how many channels there are."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Run :func:`torch.nn.functional.linear`, with one input by the operations for several.

    PyTorch adds the bias by an operation of its own where inputs do not lie side by side, as heads behind a
    permutation. One alone does so anywhere.
    """
    if bias is not None and input.dim() > 2 and input.shape[-1] == 1 and input.stride(-1) != 1:
        return (input @ weight.t()).add_(bias)
    return F.linear(input, weight, bias)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Run :func:`torch.nn.functional.batch_norm`, in evaluation mode by one operation.

    PyTorch normalises an empty tensor by other operations, which index the first channel. A detector that
    finds nothing in the example must be traced like any other. In evaluation mode PyTorch makes an empty
    tensor beside, to be passed on to training: an operation more for each norm, so it is done without.
    """
    own = [x for x in (running_mean, running_var, weight, bias) if x is not None]
    plain = (
        running_mean is not None
        and running_var is not None
        and all(x.shape == input.shape[1:2] and x.dtype == input.dtype for x in own)
    )
    if training or (input.numel() and not plain):
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    return torch.native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)[0]


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Run :func:`torch.nn.functional.scaled_dot_product_attention`, without values by one operation.

    PyTorch takes it to pieces there, a dozen operations, which say less of heads than attention does.
    """
    sizes = {x.dim() for x in (query, key, value)} | {x.shape[-1] - query.shape[-1] for x in (key, value)}
    if query.is_meta and sizes == {4, 0}:
        if attn_mask is not None:
            _check_mask(attn_mask.shape, torch.Size([*query.shape[:-1], key.shape[-2]]))
        fused: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        found: Tensor = fused(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]
        return found
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )


def _check_mask(mask: torch.Size, products: torch.Size) -> None:
    """Raise `RuntimeError` unless a mask fits the products of queries and keys, as with values."""
    if torch.broadcast_shapes(mask, products) != products:  # type: ignore[no-untyped-call]
        raise RuntimeError(f"a mask of shape {list(mask)} does not fit products of shape {list(products)}")
