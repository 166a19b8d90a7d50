"""Attentions that take the width of their heads to be that of their input, as many networks write them."""

import torch
from torch import nn
from torch.nn import functional as F


class Plain(nn.Module):
    """As in DeiT, DINO and whatever came from them."""

    def __init__(self, dim, num_heads, qkv_bias=True):
        super().__init__()
        self.num_heads, self.scale = num_heads, (dim // num_heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.attn_drop, self.proj_drop = nn.Dropout(0.2), nn.Dropout(0.1)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = (q @ k.transpose(-2, -1)) * self.scale
        attn = self.attn_drop(attn.softmax(dim=-1))
        x = (attn @ v).transpose(1, 2).reshape(B, N, C)
        return self.proj_drop(self.proj(x))


class Biased(nn.Module):
    """As in BEiT: biases apart, a table for each head, and one of the two numbers only."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias, self.v_bias = nn.Parameter(torch.randn(dim)), nn.Parameter(torch.randn(dim))
        self.register_buffer("k_bias", torch.zeros(dim), persistent=False)
        self.table = nn.Parameter(torch.randn(num_heads, 9, 9))
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        B, N, C = x.shape
        bias = torch.cat((self.q_bias, self.k_bias, self.v_bias))
        qkv = F.linear(x, weight=self.qkv.weight, bias=bias)
        q, k, v = qkv.reshape(B, N, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=self.table.unsqueeze(0))
        return self.proj(x.transpose(1, 2).reshape(B, N, C))


class Talking(nn.Module):
    """As in CaiT: heads are mixed before and after the softmax."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj_l, self.proj_w = nn.Linear(num_heads, num_heads), nn.Linear(num_heads, num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attn = q @ k.transpose(-2, -1)
        attn = self.proj_l(attn.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).softmax(dim=-1)
        attn = self.proj_w(attn.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.proj((attn @ v).transpose(1, 2).reshape(B, N, C))


class OfChannels(nn.Module):
    """As in XCiT: over the numbers of each head, not over places."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1))
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        B, N, C = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 4, 1)
        q, k, v = qkv.unbind(0)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attn = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(dim=-1)
        return self.proj((attn @ v).permute(0, 3, 1, 2).reshape(B, N, C))


class Reduced(nn.Module):
    """As in PVT and Twins: C is the width of an image too, whose places are fewer for keys."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        self.sr, self.norm = nn.Conv2d(dim, dim, 3, 3), nn.LayerNorm(dim)

    def forward(self, x):
        B, N, C = x.shape
        q = self.q(x).reshape(B, N, self.num_heads, C // self.num_heads).permute(0, 2, 1, 3)
        x = x.permute(0, 2, 1).reshape(B, C, 3, 3)
        x = self.norm(self.sr(x).reshape(B, C, -1).permute(0, 2, 1))
        kv = self.kv(x).reshape(B, -1, 2, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, kv[0], kv[1])
        return self.proj(x.transpose(1, 2).reshape(B, N, C))


class InMethods(Plain):
    """As in ConViT: the weights of the attention have a method of their own; sizes are read one by one."""

    def weights(self, qkv, width):
        q, k = qkv[0], qkv[1]
        return ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)

    def queries(self, x):
        width = x.shape[-1]
        head_dim = width // self.num_heads
        return self.qkv(x).view(x.size(0), x.size(1), 3, self.num_heads, head_dim).permute(2, 0, 3, 1, 4)

    def forward(self, x):
        C = x.size(-1)
        qkv = self.queries(x)
        x = (self.weights(qkv, C) @ qkv[2]).transpose(1, 2).reshape(x.size(0), -1, C)
        return self.proj(x)


class Pooled(nn.Module):
    """A learned token asks; its width is its own."""

    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        B, N, C = x.shape
        q = self.q(self.token.expand(B, -1, -1)).reshape(B, 1, self.num_heads, -1).transpose(1, 2)
        kv = self.kv(x).reshape(B, N, 2, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, kv[0], kv[1])
        return self.proj(x.transpose(1, 2).reshape(B, 1, C))


KINDS = {kind.__name__: kind for kind in (Plain, Biased, Talking, OfChannels, Reduced, InMethods, Pooled)}


class Stream(nn.Module):
    """A residual stream of 9 tokens through two such attentions, before which there are norms."""

    def __init__(self, kind, width=12, heads=4):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 2, 2)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.attentions = nn.ModuleList(kind(width, heads) for _ in range(2))
        self.up, self.down = nn.Linear(width, 20), nn.Linear(20, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        for norm, attention in zip(self.norms, self.attentions, strict=False):
            x = x + attention(norm(x))
        x = x + self.down(F.gelu(self.up(self.norms[2](x))))
        return self.head(x.mean(1))
