"""Run torchvision's attentions in windows, of Swin (for videos too) and MaxViT, with some of their heads.

Their own forward passes take the width of all heads together to be that of the input. A module that loses
heads changes its class in place, and back when it has all. It has the same parameters, and the same results,
equal to the last bit with all heads.
"""

from __future__ import annotations

import math

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.maxvit import RelativePositionalMultiHeadAttention
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d


def attended(
    x: Tensor,
    bias: Tensor,
    weights: list[Tensor],
    input_bias: Tensor | None,
    output_bias: Tensor | None,
    window: list[int],
    shift: list[int],
    heads: int,
    dropouts: list[float],
    training: bool,
    cosine_scale: Tensor | None = None,
) -> Tensor:
    """Return the attention within windows of the videos `x` [B, T, H, W, C]; an image is one of one frame.

    Args:
        x: The videos.
        bias: [1, heads, positions, positions], added to the products of queries and keys.
        weights: [3 * heads * d, C], which makes queries, keys and values, and [C', heads * d].
        input_bias: [3 * heads * d], or None.
        output_bias: [C'], or None.
        window: The sides of a window.
        shift: By how much windows are shifted along each side; nothing along one that has one window.
        heads: The number of heads in `weights`.
        dropouts: The probabilities with which weights of the attention and results are dropped.
        training: Whether any are.
        cosine_scale: [heads, 1, 1], by which the cosines of Swin V2 are multiplied; None for Swin.

    Returns:
        [B, T, H, W, C'].
    """
    frames, height, width = x.shape[1], x.shape[2], x.shape[3]
    x = F.pad(x, [0, 0, 0, -width % window[2], 0, -height % window[1], 0, -frames % window[0]])
    sides = [x.shape[1], x.shape[2], x.shape[3]]
    by = [0 if window[k] >= sides[k] else shift[k] for k in range(3)]
    if max(by) > 0:
        x = torch.roll(x, [-by[0], -by[1], -by[2]], [1, 2, 3])
    x = in_windows(x, window)
    if input_bias is not None and cosine_scale is not None:  # there, keys have no bias
        of_keys = torch.arange(3, device=input_bias.device).unsqueeze(1) == 1
        input_bias = torch.where(of_keys, 0.0, input_bias.view(3, -1)).flatten()
    qkv = F.linear(x, weights[0], input_bias)
    q, k, v = qkv.reshape(x.shape[0], x.shape[1], 3, heads, -1).permute(2, 0, 3, 1, 4).unbind()
    if cosine_scale is None:
        products = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    else:
        products = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1) * cosine_scale
    products = products + bias
    if max(by) > 0:
        regions = regions_of(x, window, by, sides).unsqueeze(1).unsqueeze(0)
        by_video = products.view(-1, regions.shape[1], heads, x.shape[1], x.shape[1])
        products = (by_video + regions).view(products.shape)
    shares = F.dropout(F.softmax(products, dim=-1), p=dropouts[0], training=training)
    x = shares.matmul(v).transpose(1, 2).reshape(x.shape[0], x.shape[1], -1)
    x = F.dropout(F.linear(x, weights[1], output_bias), p=dropouts[1], training=training)
    x = from_windows(x, window, sides)
    if max(by) > 0:
        x = torch.roll(x, by, [1, 2, 3])
    return x[:, :frames, :height, :width].contiguous()


def window_of(x: Tensor, window: list[int]) -> list[int]:
    """Return `window`, no larger than the videos `x` [B, T, H, W, C]."""
    return [min(window[k], x.shape[k + 1]) for k in range(3)]


# to torch.fx, and so to torchvision's feature extractor, each is one operation; all can be scripted
torch.fx.wrap("attended")
torch.fx.wrap("window_of")


def in_windows(x: Tensor, window: list[int]) -> Tensor:
    """Return [B, T, H, W, C] as [B * windows, positions, C]."""
    b, frames, height, width, channels = x.shape
    t, h, w = window[0], window[1], window[2]
    x = x.view(b, frames // t, t, height // h, h, width // w, w, channels)
    return x.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, t * h * w, channels)


def from_windows(x: Tensor, window: list[int], sides: list[int]) -> Tensor:
    """Return [B * windows, positions, C] as [B, T, H, W, C] with these `sides`."""
    t, h, w = window[0], window[1], window[2]
    x = x.view(-1, sides[0] // t, sides[1] // h, sides[2] // w, t, h, w, x.shape[-1])
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(x.shape[0], sides[0], sides[1], sides[2], x.shape[-1])


def regions_of(x: Tensor, window: list[int], shift: list[int], sides: list[int]) -> Tensor:
    """Return what is added to the products, [windows, positions, positions], of the type of `x`.

    A roll puts parts of the image into one window that are not neighbours; they do not see each other.
    """
    numbers = torch.zeros(sides, dtype=x.dtype, device=x.device)
    for dim in range(3):
        cut = torch.arange(sides[dim], device=x.device)
        region = (cut >= sides[dim] - window[dim]).to(x.dtype) + (cut >= sides[dim] - shift[dim]).to(x.dtype)
        shape = [1, 1, 1]
        shape[dim] = sides[dim]
        numbers = 3 * numbers + region.view(shape)
    numbers = in_windows(numbers[None, :, :, :, None], window).squeeze(2)
    return torch.where(numbers.unsqueeze(1) == numbers.unsqueeze(2), 0.0, -100.0).to(x.dtype)


class WindowAttentionOfFewerHeads(ShiftedWindowAttention):  # type: ignore[misc]
    """A :class:`ShiftedWindowAttention` whose heads are as many as its weights have."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute attention within windows of the images `x` [B, H, W, C]; return [B, H, W, C]."""
        return attended(
            x.unsqueeze(1),
            self.get_relative_position_bias(),
            [self.qkv.weight, self.proj.weight],
            self.qkv.bias,
            self.proj.bias,
            [1, self.window_size[0], self.window_size[1]],
            [0, self.shift_size[0], self.shift_size[1]],
            self.num_heads,
            [self.attention_dropout, self.dropout],
            self.training,
            self._cosine_scale(),
        ).squeeze(1)

    def _cosine_scale(self) -> Tensor | None:
        """Return what the cosines of queries and keys are multiplied by, or None if not these are used."""
        return None


class WindowAttentionV2OfFewerHeads(WindowAttentionOfFewerHeads, ShiftedWindowAttentionV2):  # type: ignore[misc]
    """A :class:`ShiftedWindowAttentionV2` whose heads are as many as its weights have."""

    def _cosine_scale(self) -> Tensor | None:
        return torch.clamp(self.logit_scale, max=math.log(100.0)).exp()


class WindowAttention3dOfFewerHeads(ShiftedWindowAttention3d):  # type: ignore[misc]
    """A :class:`ShiftedWindowAttention3d` whose heads are as many as its weights have."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute attention within windows of the videos `x` [B, T, H, W, C]; return [B, T, H, W, C]."""
        window = window_of(x, self.window_size)
        return attended(
            x,
            self.get_relative_position_bias(window),
            [self.qkv.weight, self.proj.weight],
            self.qkv.bias,
            self.proj.bias,
            window,
            self.shift_size,
            self.num_heads,
            [self.attention_dropout, self.dropout],
            self.training,
        )


class PartitionAttentionOfFewerHeads(RelativePositionalMultiHeadAttention):  # type: ignore[misc]
    """A :class:`RelativePositionalMultiHeadAttention` whose heads are as many as its weights have."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute attention along the positions of `x` [B, groups, positions, C]; return such a tensor."""
        b, groups, positions, _ = x.shape
        q, k, v = torch.chunk(self.to_qkv(x), 3, dim=-1)
        q = q.reshape(b, groups, positions, self.n_heads, self.head_dim).transpose(2, 3)
        k = k.reshape(b, groups, positions, self.n_heads, self.head_dim).transpose(2, 3)
        v = v.reshape(b, groups, positions, self.n_heads, self.head_dim).transpose(2, 3)
        products = torch.einsum("bghid,bghjd->bghij", q, k * self.scale_factor)
        weights = F.softmax(products + self.get_relative_positional_bias(), dim=-1)
        out = torch.einsum("bghij,bghjd->bghid", weights, v)
        merged: Tensor = self.merge(out.transpose(2, 3).reshape(b, groups, positions, -1))
        return merged


TWINS: dict[type[nn.Module], type[nn.Module]] = {
    ShiftedWindowAttention: WindowAttentionOfFewerHeads,
    ShiftedWindowAttentionV2: WindowAttentionV2OfFewerHeads,
    ShiftedWindowAttention3d: WindowAttention3dOfFewerHeads,
    RelativePositionalMultiHeadAttention: PartitionAttentionOfFewerHeads,
}
"""{class of torchvision: the one that runs with fewer heads}."""
