"""Small networks, in parts on several processes (FSDP2), and where they differ from plain ones."""

import functools

import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from reprune.modules import sharded
from tests.helpers.networks import images, small_resnet


class Block(nn.Module):
    """Attention with its own projections, and a gated MLP."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.up, self.gate, self.down = nn.Linear(width, 24), nn.Linear(width, 24), nn.Linear(24, width)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = self.norm2(x)
        return x + self.down(torch.sigmoid(self.gate(y)) * self.up(y))


class Tokens(nn.Module):
    """A transformer whose embedding and head are one tensor."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 16), nn.Linear(16, 11, bias=False)
        self.head.weight = self.embed.weight
        self.blocks = nn.ModuleList([Block(16)])

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def tokens():
    torch.manual_seed(0)
    return Tokens()


def words(seed=0):
    return torch.randint(0, 11, (8, 6), generator=torch.Generator().manual_seed(seed))


def convolutions():
    return small_resnet(blocks=1)


NETWORKS = {  # (model, input, settings of a plan)
    "convolutions": (convolutions, lambda seed: images(8, seed=seed), {"scope": "all", "layers": "all"}),
    "tokens": (tokens, words, {"layers": "linear", "rule": "uniform"}),
}
OPTIMIZERS = {
    "SGD": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, foreach=True),
    "AdamW": functools.partial(torch.optim.AdamW, lr=0.01, foreach=True),
}


def shard(model):
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)


def sharded_model(build=convolutions):
    model = build()
    shard(model)
    return model


def train(model, optimizer, x):
    """One step; all processes see the same, so that averages over two or four are exact."""
    model.train()
    optimizer.zero_grad()
    y = model(x)
    nn.functional.cross_entropy(y, torch.arange(len(y)) % 5).backward()
    optimizer.step()


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def differences(model, optimizer, plain, its):
    """Where a sharded model and its optimizer differ from plain ones, bit for bit."""
    sharded.settle(model)
    found = []
    for (name, mine), (other, theirs) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        pairs = {"": (mine, theirs)}
        if theirs.grad is not None:
            pairs["gradient"] = (mine.grad, theirs.grad)
        states, others = optimizer.state.get(mine, {}), its.state.get(theirs, {})
        found += [] if name == other and states.keys() == others.keys() else [f"{name} is not {other}"]
        pairs |= {kind: (states[kind], others[kind]) for kind in others}
        found += [f"{name} {kind}" for kind, (a, b) in pairs.items() if not torch.equal(whole(a), b)]
    for (name, mine), (_, theirs) in zip(model.named_buffers(), plain.named_buffers(), strict=True):
        found += [] if torch.equal(mine, theirs) else [name]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    found += [] if held == {id(p) for p in model.parameters()} else ["optimizer"]
    return found


def met(work):
    """The error that `work` meets."""
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"
