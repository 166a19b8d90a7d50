"""Run torch.nn.MultiheadAttention with some of its heads.

PyTorch's own forward pass takes a head's size to be the width of its input divided by the number of heads,
so it cannot run with fewer. A module that loses heads changes its class in place, and back when it has all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AttentionOfFewerHeads(nn.MultiheadAttention):
    """A :class:`torch.nn.MultiheadAttention` whose heads are as many as its weights have.

    It has the same parameters, arguments and results, which are equal to the last bit with all heads. It
    takes no fast path, and neither does a layer or encoder of a transformer that it is in; `embed_dim` is the
    width of its input, not that of its heads together.
    """

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """Say what keeps the layers around from a fast path; in the module itself nothing reads it."""
        return False

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute attention; see :meth:`torch.nn.MultiheadAttention.forward`.

        Args:
            query: [L, E], [L, B, E], or [B, L, E] with `batch_first`; so are `key` [S, .., kdim] and `value`
                [S, .., vdim].
            key: What is compared with the query.
            value: What is averaged.
            key_padding_mask: [B, S], or [S] without a batch: True, or -inf, where keys are left out.
            need_weights: Whether to return the weights too.
            attn_mask: [L, S] or, for each head of each example, [B * heads, L, S], as many as there are left.
            average_attn_weights: Whether to average the weights over the heads.
            is_causal: Whether `attn_mask` is the causal one.

        Returns:
            The result, shaped like `query`, and the weights [B, L, S], or [B, heads, L, S], or None.
        """
        if query.is_nested or key.is_nested or value.is_nested:
            raise ValueError("query: expected an ordinary tensor; a nested one needs all heads")
        if is_causal and attn_mask is None:
            raise ValueError("attn_mask: is_causal=True needs the causal mask as well; got None")
        batched = query.dim() == 3
        query, key, value = self._sequences_first(query, key, value, batched)
        padding = F._canonical_mask(
            mask=key_padding_mask,
            mask_name="key_padding_mask",
            other_type=F._none_or_dtype(attn_mask),
            other_name="attn_mask",
            target_type=query.dtype,
        )
        if is_causal and padding is None and not need_weights:
            attn_mask = None
        else:
            is_causal = is_causal and padding is None
            attn_mask = F._canonical_mask(
                mask=attn_mask,
                mask_name="attn_mask",
                other_type=None,
                other_name="",
                target_type=query.dtype,
                check_other=False,
            )
        if padding is not None and not batched:
            padding = padding.unsqueeze(0)
        q, k, v, attn_mask, padding = self._longer(*self._projected(query, key, value), attn_mask, padding)
        length, batch = q.shape[:2]
        q, k, v = (self._by_head(x) for x in (q, k, v))  # [B * heads, L or S, D]
        if self.add_zero_attn:
            k, v = (torch.cat([x, x.new_zeros(len(x), 1, x.shape[2])], dim=1) for x in (k, v))
            attn_mask, padding = _one_longer(attn_mask), _one_longer(padding)
        attend = self._with_weights if need_weights else self._without_weights
        out, weights = attend(q, k, v, attn_mask, padding, batch, is_causal)
        out = F.linear(out.reshape(length * batch, -1), self.out_proj.weight, self.out_proj.bias)
        out = out.view(length, batch, -1)
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return out.squeeze(1), None if weights is None else weights.squeeze(0)
        return out.transpose(1, 0) if self.batch_first else out, weights

    def _sequences_first(
        self, query: Tensor, key: Tensor, value: Tensor, batched: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return [L, B, E], [S, B, kdim] and [S, B, vdim]; what is one tensor stays one."""
        moved: dict[int, Tensor] = {}
        for x in (query, key, value):
            if not batched:
                moved.setdefault(id(x), x.unsqueeze(1))
            else:
                moved.setdefault(id(x), x.transpose(1, 0) if self.batch_first else x)
        return moved[id(query)], moved[id(key)], moved[id(value)]

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries, keys and values of all heads, each [L or S, B, heads * D]."""
        packed, bias = self.in_proj_weight, self.in_proj_bias
        # What is ignored below: the types do not say how many parts a tuple has; there are three.
        if packed is not None and query is key and key is value:
            return _parts(F.linear(query, packed, bias), 3)  # type: ignore[return-value]
        weights = (
            [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
            if packed is None
            else packed.reshape(3, -1, packed.shape[1])
        )
        biases = [None] * 3 if bias is None else bias.reshape(3, -1)
        if packed is not None and key is value:
            both = None if bias is None else biases[1:].flatten()
            pair = _parts(F.linear(key, weights[1:].flatten(0, 1), both), 2)
            return F.linear(query, weights[0], biases[0]), *pair  # type: ignore[return-value]
        return tuple(F.linear(x, weights[i], biases[i]) for i, x in enumerate((query, key, value)))  # type: ignore[return-value]

    def _longer(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, padding: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Append the learned key and value, if there are any; return the mask as [1 or B * heads, L, S]."""
        mask = mask.unsqueeze(0) if mask is not None and mask.dim() == 2 else mask
        if self.bias_k is None or self.bias_v is None:
            return q, k, v, mask, padding
        k, v = (torch.cat([x, b.repeat(1, x.shape[1], 1)]) for x, b in ((k, self.bias_k), (v, self.bias_v)))
        return q, k, v, _one_longer(mask), _one_longer(padding)

    def _by_head(self, x: Tensor) -> Tensor:
        """Return [L or S, B, heads * D] as [B * heads, L or S, D]."""
        return x.view(len(x), x.shape[1] * self.num_heads, self.head_dim).transpose(0, 1)

    def _joint(self, mask: Tensor | None, padding: Tensor | None, batch: int) -> Tensor | None:
        """Return what is added to the products, broadcastable to [B, heads, L, S]."""
        if mask is not None:
            mask = mask.unsqueeze(0) if len(mask) == 1 else mask.view(batch, self.num_heads, *mask.shape[1:])
        if padding is None:
            return mask
        padding = padding.view(batch, 1, 1, -1)
        return padding if mask is None else mask + padding

    def _with_weights(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        padding: Tensor | None,
        batch: int,
        is_causal: bool,
    ) -> tuple[Tensor, Tensor]:
        """Return [L, B * heads, D], and the weights [B, heads, L, S]."""
        q = q * math.sqrt(1.0 / float(q.shape[-1]))
        if mask is not None and padding is None:
            scores = torch.baddbmm(mask, q, k.transpose(-2, -1))
        else:
            scores = torch.bmm(q, k.transpose(-2, -1))
            joint = self._joint(mask, padding, batch)
            if joint is not None:  # with a dimension for heads, so that these can leave
                by_head = scores.view(batch, self.num_heads, *scores.shape[1:])
                scores = (by_head + joint).flatten(0, 1)
        weights = scores.softmax(dim=-1)
        if self.training and self.dropout > 0.0:
            weights = F.dropout(weights, p=self.dropout)
        out = torch.bmm(weights, v).transpose(0, 1)
        return out, weights.view(batch, self.num_heads, *weights.shape[1:])

    def _without_weights(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        padding: Tensor | None,
        batch: int,
        is_causal: bool,
    ) -> tuple[Tensor, None]:
        """Return [L, B, heads, D]."""
        q, k, v = (x.view(batch, self.num_heads, *x.shape[1:]) for x in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        joint = self._joint(mask, padding, batch)
        out = F.scaled_dot_product_attention(q, k, v, joint, dropout, is_causal)
        return out.permute(2, 0, 1, 3), None


def _parts(x: Tensor, count: int) -> tuple[Tensor, ...]:
    """Return `count` parts of the last dimension, each of them contiguous."""
    parts = x.view(*x.shape[:-1], count, -1).unsqueeze(0).transpose(0, -2).squeeze(-2).contiguous()
    return tuple(parts[i] for i in range(count))


def _one_longer(mask: Tensor | None) -> Tensor | None:
    """Return `mask` with one more key, which is not left out."""
    return None if mask is None else F.pad(mask, (0, 1))
