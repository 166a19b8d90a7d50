"""Small attentions, each with some heads on 16 numbers per token, as networks write them."""

import torch
from torch import nn
from torch.nn import functional as F

import reprune

TOKENS = torch.randn(2, 5, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def fused(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def grouped(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def eager(q, k, v):
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v


def by_einsum(q, k, v):
    return torch.einsum("bhnm,bhmd->bhnd", torch.einsum("bhnd,bhmd->bhnm", q, k).softmax(-1), v)


def one_by_one(q, k, v):
    """A batch of matrices for each head of each example."""
    b, h = q.shape[:2]
    q, k, v = (y.reshape(b * h, -1, y.shape[-1]) for y in (q, k, v))
    return torch.bmm(torch.bmm(q, k.mT).softmax(-1), v).view(b, h, -1, v.shape[-1])


def by_efficient_kernel(q, k, v):
    """A kernel of GPUs, which a trace without values follows anywhere."""
    return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, False)[0]


def by_flash_kernel(q, k, v):
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]


class Separate(nn.Module):
    """Queries, keys and values by a layer each; a key may serve several queries."""

    def __init__(self, attend=fused, heads=4, key_heads=None, width=4):
        super().__init__()
        torch.manual_seed(0)
        self.attend, self.head_dim = attend, width
        self.num_heads, self.num_key_value_heads = heads, key_heads or heads
        self.num_key_value_groups = self.num_heads // self.num_key_value_heads
        keys = self.num_key_value_heads * width
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(16, heads * width),
            nn.Linear(16, keys),
            nn.Linear(16, keys),
        )
        self.o_proj = nn.Linear(heads * width, 16)

    def forward(self, x):
        b, n, _ = x.shape
        q = self.q_proj(x).view(b, n, self.num_heads, self.head_dim).transpose(1, 2)
        k, v = (
            layer(x).view(b, n, self.num_key_value_heads, self.head_dim).transpose(1, 2)
            for layer in (self.k_proj, self.v_proj)
        )
        if self.num_key_value_groups > 1 and self.attend is not grouped:
            k, v = map(self.repeated, (k, v))
        return self.o_proj(self.attend(q, k, v).transpose(1, 2).reshape(b, n, -1))

    def repeated(self, x):
        b, h, n, d = x.shape
        x = x[:, :, None].expand(b, h, self.num_key_value_groups, n, d)
        return x.reshape(b, h * self.num_key_value_groups, n, d)


class Packed(nn.Module):
    """Queries, keys and values by one layer."""

    def __init__(self, attend=fused, heads=4, width=4, chunks=False):
        super().__init__()
        torch.manual_seed(0)
        self.attend, self.num_heads, self.head_dim, self.chunks = attend, heads, width, chunks
        self.attn_dim = heads * width
        self.qkv, self.proj = nn.Linear(16, 3 * self.attn_dim), nn.Linear(self.attn_dim, 16)

    def forward(self, x):
        b, n, _ = x.shape
        if self.chunks:
            parts = self.qkv(x).chunk(3, 2)
            q, k, v = (y.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2) for y in parts)
        else:
            qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.attend(q, k, v).transpose(1, 2).reshape(b, n, self.attn_dim))


class Conv1D(nn.Module):
    """The Linear layer of transformers' GPT-2: a weight with inputs first, sizes of other names."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf) / 4), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(*x.shape[:-1], self.nf)


class Turned(nn.Module):
    """Layers with inputs first, cut by a number of numbers, as in GPT-2."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.num_heads, self.head_dim, self.split_size = 4, 4, 16
        self.c_attn, self.c_proj = Conv1D(48, 16), Conv1D(16, 16)

    def forward(self, x):
        b, n, _ = x.shape
        parts = self.c_attn(x).split(self.split_size, dim=2)
        q, k, v = (y.view(b, n, -1, self.head_dim).transpose(1, 2) for y in parts)
        return self.c_proj(fused(q, k, v).transpose(1, 2).reshape(b, n, -1))


class Normed(nn.Module):
    """Layers in modules with a norm, and a bias that is computed once, as in LeViT."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.num_attention_heads, self.out_dim_projection = 4, 16
        self.queries_keys_values = nn.ModuleDict({"linear": nn.Linear(16, 48), "norm": nn.BatchNorm1d(48)})
        self.proj, self.biases = nn.Linear(16, 16), nn.Parameter(torch.randn(4, 5))
        self.attention_bias_cache = {}

    def forward(self, x):
        b, n, _ = x.shape
        y = self.queries_keys_values["linear"](x)
        y = self.queries_keys_values["norm"](y.flatten(0, 1)).reshape_as(y)
        q, k, v = y.view(b, n, self.num_attention_heads, -1).split([4, 4, 4], dim=3)
        if "biases" not in self.attention_bias_cache:
            self.attention_bias_cache["biases"] = self.biases[:, None]
        scores = q.transpose(1, 2) @ k.permute(0, 2, 3, 1) + self.attention_bias_cache["biases"]
        y = scores.softmax(-1) @ v.transpose(1, 2)
        return self.proj(y.transpose(1, 2).reshape(b, n, self.out_dim_projection))


class Windowed(Packed):
    """A learned bias for each head and each distance, as in windows of images."""

    def __init__(self, tokens=5, **how):
        super().__init__(**how)
        self.table = nn.Parameter(torch.randn(2 * tokens - 1, self.num_heads))
        self.scale = nn.Parameter(torch.rand(self.num_heads, 1, 1))
        places = torch.arange(tokens)
        self.register_buffer("distance", places[:, None] - places + tokens - 1)

    def forward(self, x):
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        bias = self.table[self.distance.view(-1)].view(n, n, -1).permute(2, 0, 1)
        y = (q @ k.mT * self.scale + bias.unsqueeze(0)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, self.attn_dim))


class Torch(nn.Module):
    """PyTorch's own module, called with `how`."""

    def __init__(self, forms="xxx", how=None, **settings):
        super().__init__()
        torch.manual_seed(0)
        self.forms, self.how = forms, {"need_weights": False} if how is None else how
        self.attention = nn.MultiheadAttention(16, 4, **settings)

    def forward(self, x):
        given = {"x": x, "y": x.flip(1), "z": x + 1, "w": x[..., :12]}
        return self.attention(*(given[form] for form in self.forms), **self.how)[0]


ATTENTIONS = {
    "separate": Separate,
    "two heads": lambda: Separate(heads=2, width=8),
    "three heads": lambda: Separate(heads=3),
    "eager": lambda: Separate(eager),
    "einsum": lambda: Separate(by_einsum),
    "one by one": lambda: Separate(one_by_one),
    "grouped": lambda: Separate(grouped, heads=8, key_heads=4),
    "grouped and repeated": lambda: Separate(heads=8, key_heads=4),
    "grouped, eager": lambda: Separate(eager, heads=8, key_heads=4),
    "two keys": lambda: Separate(heads=4, key_heads=2),
    "packed": Packed,
    "packed, two heads": lambda: Packed(heads=2, width=8),
    "packed, three heads": lambda: Packed(heads=3),
    "packed, eager": lambda: Packed(eager),
    "packed in chunks": lambda: Packed(chunks=True),
    "windowed": Windowed,
    "inputs first": Turned,
    "inside of modules with norms": Normed,
    "torch": Torch,
    "torch, batch first": lambda: Torch(batch_first=True),
    "torch, no bias": lambda: Torch(bias=False),
    "torch, more keys": lambda: Torch(add_bias_kv=True, add_zero_attn=True),
    "torch, weights of each head": lambda: Torch(how={"average_attn_weights": False}),
    "torch, another key": lambda: Torch("xyy"),
    "torch, all three": lambda: Torch("xyz"),
    "torch, layers of their own": lambda: Torch("xwz", kdim=12),
}


def encoder():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) / 10)
    return model


def halved(model, x=TOKENS, **how):
    return reprune.prune(model, x, sparsity=0.5, rule="uniform", layers="linear", **how)


def heads_of(graph):
    """(heads, query's heads, rows of each layer) of the only group of heads."""
    (group,) = (group for group in graph.groups if not graph.traced.heads.isdisjoint(group.atoms.tolist()))
    return group.atoms.size, [p.rows.shape for p in group.producers]
