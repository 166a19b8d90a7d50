"""Norms over channels as networks define their own, and classes that only look like norms."""

import torch
from torch import nn
from torch.nn import functional as F


class OwnLayerNorm(nn.Module):
    """As in nanoGPT: a layer norm with or without bias."""

    def __init__(self, width, bias=True):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None

    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-5)


class OwnRMSNorm(nn.Module):
    """As in Llama."""

    def __init__(self, width, eps=1e-3):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.variance_epsilon = eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


class OwnGroupNorm(nn.GroupNorm):
    """As in PoolFormer: one group, that is, all channels and places."""

    def __init__(self, width):
        super().__init__(1, width)


class OwnGRN(nn.Module):
    """As in ConvNeXt V2, on images with channels last."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.bias = nn.Parameter(torch.zeros(1, 1, 1, width))

    def forward(self, x):
        strength = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        relative = strength / (strength.mean(dim=-1, keepdim=True) + 1e-6)
        return self.weight * (x * relative) + self.bias + x


class ShiftedRMSNorm(OwnRMSNorm):
    """As in Gemma: a weight of zero does not make a channel zero."""

    def forward(self, x):
        return (1 + self.weight) * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


class WhereTrainedNorm(OwnLayerNorm):
    """Nothing but a scale in training."""

    def forward(self, x):
        return x * self.weight + self.bias if self.training else super().forward(x)


class OfTokensNorm(OwnLayerNorm):
    """Another function of tokens than of images."""

    def forward(self, x):
        return super().forward(x) if x.dim() == 4 else torch.tanh(x) * self.weight


class LimitedNorm(OwnLayerNorm):
    """Large values are cut off before it, or after it."""

    def __init__(self, width, before):
        super().__init__(width)
        self.before = before

    def forward(self, x):
        return super().forward(x.clamp(-1, 1)) if self.before else super().forward(x).clamp(-9, 9)


class ListedNorm(OwnLayerNorm):
    """Depends on a list."""

    def __init__(self, width, factors):
        super().__init__(width)
        self.factors = factors

    def forward(self, x):
        for factor in self.factors:
            x = x * factor
        return super().forward(x)


class WithResidualNorm(OwnLayerNorm):
    """Adds to its input first, if there is something to be added."""

    def forward(self, x, residual=None):
        return super().forward(x if residual is None else x + residual)
