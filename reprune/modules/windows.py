"""Run torchvision's attentions in windows, of Swin (for videos too) and MaxViT, with some of their heads.

Their own forward passes take the width of all heads together to be that of the input. A module that loses
heads changes its class in place, and back when it has all. It has the same parameters, and the same results,
equal to the last bit with all heads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

OTHER_REGION = -100.0
"""Added to the product of a query and a key of parts of the image that are not neighbours."""
LARGEST_SCALE = math.log(100.0)
"""Of the cosine attention of Swin V2, as a logarithm."""

Sizes = Sequence[int]
"""One number for each side of an image, or of a video: time, height, width."""


class _InWindows:
    """What the attentions of Swin have in common; `x` is [B, *sides, C]."""

    training: bool
    num_heads: int
    attention_dropout: float
    dropout: float
    qkv: nn.Linear
    proj: nn.Linear

    def _in_windows(self, x: Tensor, bias: Tensor, window: Sizes, shift: Sizes) -> Tensor:
        """Return the attention of `x` within windows, which lie across the usual ones by `shift`."""
        sides, along = x.shape[1:-1], tuple(range(1, x.dim() - 1))
        missing = [-side % size for side, size in zip(sides, window, strict=True)]
        x = F.pad(x, (0, 0, *(n for more in reversed(missing) for n in (0, more))))
        padded = x.shape[1:-1]
        if any(shift):
            x = torch.roll(x, [-by for by in shift], along)
        x = _joined(self._attended(_windows(x, window), bias, window, shift, padded), window, padded)
        if any(shift):
            x = torch.roll(x, list(shift), along)
        for dim, side in zip(along, sides, strict=True):
            x = x.narrow(dim, 0, side)
        return x.contiguous()

    def _attended(self, x: Tensor, bias: Tensor, window: Sizes, shift: Sizes, padded: Sizes) -> Tensor:
        """Return the attention within each window, [B * windows, positions, C]."""
        windows, positions, _ = x.shape
        qkv = F.linear(x, self.qkv.weight, self._input_bias())
        q, k, v = qkv.reshape(windows, positions, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        weights = self._products(q, k) + bias
        if any(shift):
            regions = _regions(x, window, shift, padded)
            by_image = weights.view(-1, len(regions), *weights.shape[1:])
            weights = (by_image + regions.unsqueeze(1).unsqueeze(0)).view(weights.shape)
        weights = F.dropout(F.softmax(weights, dim=-1), p=self.attention_dropout, training=self.training)
        x = weights.matmul(v).transpose(1, 2).reshape(windows, positions, -1)
        return F.dropout(self.proj(x), p=self.dropout, training=self.training)

    def _input_bias(self) -> Tensor | None:
        return self.qkv.bias

    def _products(self, q: Tensor, k: Tensor) -> Tensor:
        products: Tensor = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return products


def _windows(x: Tensor, window: Sizes) -> Tensor:
    """Return [B, *sides, C] as [B * windows, positions, C]."""
    k = len(window)
    counts = [n for side, size in zip(x.shape[1:-1], window, strict=True) for n in (side // size, size)]
    x = x.view(len(x), *counts, x.shape[-1])
    x = x.permute(0, *range(1, 2 * k, 2), *range(2, 2 * k + 1, 2), 2 * k + 1)
    return x.reshape(-1, math.prod(window), x.shape[-1])


def _joined(x: Tensor, window: Sizes, sides: Sizes) -> Tensor:
    """Return windows as what they are of, [B, *sides, C]."""
    k = len(window)
    x = x.view(-1, *(side // size for side, size in zip(sides, window, strict=True)), *window, x.shape[-1])
    x = x.permute(0, *(n for d in range(1, k + 1) for n in (d, d + k)), 2 * k + 1)
    return x.reshape(len(x), *sides, x.shape[-1])


def _regions(x: Tensor, window: Sizes, shift: Sizes, sides: Sizes) -> Tensor:
    """Return what is added to the products, [windows, positions, positions].

    A roll puts parts of the image into one window that are not neighbours; they do not see each other.
    """
    numbers = x.new_zeros(tuple(sides))
    cuts = [
        (slice(0, -size), slice(-size, -by), slice(-by, None)) for size, by in zip(window, shift, strict=True)
    ]
    for number, region in enumerate(itertools.product(*cuts)):
        numbers[region] = number
    numbers = _windows(numbers[None, ..., None], window).squeeze(2)
    return torch.where(numbers.unsqueeze(1) == numbers.unsqueeze(2), 0.0, OTHER_REGION).to(x.dtype)


class WindowAttentionOfFewerHeads(_InWindows, ShiftedWindowAttention):  # type: ignore[misc]
    """A :class:`ShiftedWindowAttention` whose heads are as many as its weights have."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute attention within windows of the images `x` [B, H, W, C]; return [B, H, W, C]."""
        shift = [  # a side of one window is not rolled
            0 if size >= side else by
            for by, size, side in zip(self.shift_size, self.window_size, x.shape[1:-1], strict=True)
        ]
        return self._in_windows(x, self.get_relative_position_bias(), self.window_size, shift)


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


class WindowAttention3dOfFewerHeads(_InWindows, ShiftedWindowAttention3d):  # type: ignore[misc]
    """A :class:`ShiftedWindowAttention3d` whose heads are as many as its weights have."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute attention within windows of the videos `x` [B, T, H, W, C]; return [B, T, H, W, C]."""
        window = [min(size, side) for size, side in zip(self.window_size, x.shape[1:-1], strict=True)]
        shift = [
            0 if size >= side else by
            for by, size, side in zip(self.shift_size, self.window_size, x.shape[1:-1], strict=True)
        ]
        return self._in_windows(x, self.get_relative_position_bias(window), window, shift)


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
    ShiftedWindowAttention3d: WindowAttention3dOfFewerHeads,
    RelativePositionalMultiHeadAttention: PartitionAttentionOfFewerHeads,
}
"""{class of torchvision: the one that runs with fewer heads}."""
