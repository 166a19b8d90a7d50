"""Run torchvision's attentions in windows, those of Swin and MaxViT, with some of their heads.

Their own forward passes take the width of all heads together to be that of the input. A module that loses
heads changes its class in place, and back when it has all. It has the same parameters, and the same results,
equal to the last bit with all heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

OTHER_REGION = -100.0
"""Added to the product of a query and a key of parts of the image that are not neighbours."""
LARGEST_SCALE = math.log(100.0)
"""Of the cosine attention of Swin V2, as a logarithm."""


class WindowAttentionOfFewerHeads(ShiftedWindowAttention):  # type: ignore[misc]
    """A :class:`ShiftedWindowAttention` whose heads are as many as its weights have."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute attention within windows of the images `x` [B, H, W, C]; return [B, H, W, C]."""
        bias = self.get_relative_position_bias()
        sides = x.shape[1:3]
        padded = [-side % window for side, window in zip(sides, self.window_size, strict=True)]
        x = F.pad(x, (0, 0, 0, padded[1], 0, padded[0]))
        shift = [
            0 if window >= side else by
            for by, window, side in zip(self.shift_size, self.window_size, x.shape[1:3], strict=True)
        ]
        if any(shift):
            x = torch.roll(x, [-by for by in shift], (1, 2))
        x = self._joined(self._attended(self._windows(x), bias, shift, x.shape), x.shape)
        if any(shift):
            x = torch.roll(x, shift, (1, 2))
        return x[:, : sides[0], : sides[1], :].contiguous()

    def _windows(self, x: Tensor) -> Tensor:
        """Return the images as [B * windows, positions, C]."""
        (b, height, width, channels), (h, w) = x.shape, self.window_size
        x = x.view(b, height // h, h, width // w, w, channels)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, h * w, channels)

    def _joined(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """Return windows as the images that they are of, [B, H, W, C]."""
        (b, height, width, _), (h, w) = shape, self.window_size
        x = x.view(b, height // h, width // w, h, w, x.shape[-1])
        return x.permute(0, 1, 3, 2, 4, 5).reshape(b, height, width, x.shape[-1])

    def _attended(self, x: Tensor, bias: Tensor, shift: Sequence[int], shape: Sequence[int]) -> Tensor:
        """Return the attention within each window, [B * windows, positions, C]."""
        windows, positions, _ = x.shape
        qkv = F.linear(x, self.qkv.weight, self._input_bias())
        q, k, v = qkv.reshape(windows, positions, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        weights = self._products(q, k) + bias
        if any(shift):
            regions = self._regions(x, shift, shape)
            by_image = weights.view(-1, len(regions), *weights.shape[1:])
            weights = (by_image + regions.unsqueeze(1).unsqueeze(0)).view(weights.shape)
        weights = F.dropout(F.softmax(weights, dim=-1), p=self.attention_dropout, training=self.training)
        x = weights.matmul(v).transpose(1, 2).reshape(windows, positions, -1)
        return F.dropout(self.proj(x), p=self.dropout, training=self.training)

    def _input_bias(self) -> Tensor | None:
        bias: Tensor | None = self.qkv.bias
        return bias

    def _products(self, q: Tensor, k: Tensor) -> Tensor:
        products: Tensor = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return products

    def _regions(self, x: Tensor, shift: Sequence[int], shape: Sequence[int]) -> Tensor:
        """Return what is added to the products, [windows, positions, positions].

        A roll puts parts of the image into one window that are not neighbours; they do not see each other.
        """
        numbers = x.new_zeros(shape[1:3])
        cuts = [
            ((0, -window), (-window, -by), (-by, None))
            for window, by in zip(self.window_size, shift, strict=True)
        ]
        for i, (top, bottom) in enumerate(cuts[0]):
            for j, (left, right) in enumerate(cuts[1]):
                numbers[top:bottom, left:right] = 3 * i + j
        numbers = self._windows(numbers[None, :, :, None]).squeeze(2)
        return torch.where(numbers.unsqueeze(1) == numbers.unsqueeze(2), 0.0, OTHER_REGION).to(x.dtype)


class WindowAttentionV2OfFewerHeads(WindowAttentionOfFewerHeads, ShiftedWindowAttentionV2):  # type: ignore[misc]
    """A :class:`ShiftedWindowAttentionV2` whose heads are as many as its weights have."""

    def _input_bias(self) -> Tensor | None:
        """Return the bias of queries and values; keys have none."""
        if self.qkv.bias is None:
            return None
        of_keys = torch.arange(3, device=self.qkv.bias.device).unsqueeze(1) == 1
        return torch.where(of_keys, 0.0, self.qkv.bias.view(3, -1)).flatten()

    def _products(self, q: Tensor, k: Tensor) -> Tensor:
        cosines = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        scaled: Tensor = cosines * torch.clamp(self.logit_scale, max=LARGEST_SCALE).exp()
        return scaled


class PartitionAttentionOfFewerHeads(RelativePositionalMultiHeadAttention):  # type: ignore[misc]
    """A :class:`RelativePositionalMultiHeadAttention` whose heads are as many as its weights have."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute attention along the positions of `x` [B, groups, positions, C]; return such a tensor."""
        q, k, v = (
            part.reshape(*x.shape[:3], self.n_heads, self.head_dim).transpose(2, 3)
            for part in self.to_qkv(x).chunk(3, dim=-1)
        )
        products = torch.einsum("bghid,bghjd->bghij", q, k * self.scale_factor)
        weights = F.softmax(products + self.get_relative_positional_bias(), dim=-1)
        out = torch.einsum("bghij,bghjd->bghid", weights, v)
        merged: Tensor = self.merge(out.transpose(2, 3).reshape(*x.shape[:3], -1))
        return merged


TWINS: dict[type[nn.Module], type[nn.Module]] = {
    ShiftedWindowAttention: WindowAttentionOfFewerHeads,
    ShiftedWindowAttentionV2: WindowAttentionV2OfFewerHeads,
    RelativePositionalMultiHeadAttention: PartitionAttentionOfFewerHeads,
}
"""{class of torchvision: the one that runs with fewer heads}."""
