"""Optimizers, the networks that each can train, and what the pruner is said to do with it."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.distributed.optim import PostLocalSGDOptimizer, ZeroRedundancyOptimizer

CARRIED = "carried along"
ANEW = "held; starts anew at `finalize()`"
REFUSED = {  # as docs/training.md says it: as the error does
    "refused: state of another shape": r"optimizer: state '.*' of .*, which has shape .*, has shape",
    "refused: one state for all": r"optimizer: it keeps a state that has the size of all parameters",
    "refused: state in a list": r"optimizer: state '.*' of .* is a list of tensors",
    "refused: state in codes": r"optimizer: state '.*' of .* is a OptimState",
    "refused: refers to parameters itself": r"optimizer: expected one that keeps parameters in its param_gro",
}
SHAPE, FLAT, LIST, CODES, OWN = REFUSED


@dataclass(frozen=True)
class Case:
    make: Callable
    at_once: str = CARRIED
    """What apply() and shrink mode do."""
    masked: str = CARRIED
    network: str = "convolutions"
    layers: str = "conv"


def convolutions(width=8):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 4),
    )


def linear():
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(12, 16, bias=False),
        nn.Tanh(),
        nn.Linear(16, 4, bias=False),
    )


class Embedded(nn.Module):
    """All is frozen but the embedding, whose gradient is sparse."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(6, 8, sparse=True)
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        for p in (*self.first.parameters(), *self.last.parameters()):
            p.requires_grad_(False)

    def forward(self, x):
        word = self.words((x[:, 0, 0, 0] > 0).long() + 3 * (x[:, 0, 0, 1] > 0))
        return self.last(torch.tanh(self.first(x) + word[:, :, None, None])).mean((2, 3))


NETWORKS = {
    "convolutions": convolutions,
    "wide": lambda: convolutions(64),
    "linear": linear,
    "embedding": Embedded,
}


class SAM(torch.optim.Optimizer):
    """As it is mostly written: it shares the groups of a base optimizer, which has a state of its own."""

    def __init__(self, params, base, **settings):
        super().__init__(params, settings)
        self.base_optimizer = base(self.param_groups, **settings)
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            closure()
        for p in self.parameters():
            self.state[p]["old"] = p.clone()
            p.add_(p.grad, alpha=0.01)
        with torch.enable_grad():
            loss = closure()
        for p in self.parameters():
            p.copy_(self.state[p]["old"])
        self.base_optimizer.step()
        return loss

    def parameters(self):
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self):
        return self.base_optimizer.state_dict()

    def load_state_dict(self, state):
        self.base_optimizer.load_state_dict(state)
        self.param_groups = self.base_optimizer.param_groups


class Shampoo(torch.optim.Optimizer):
    """A factor for each dimension, in a list."""

    def __init__(self, params):
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            if not state:
                state["factors"] = [torch.eye(n) for n in p.shape]
            grad = p.grad
            for dim, factor in enumerate(state["factors"]):
                moved = grad.movedim(dim, 0)
                rows = moved.reshape(len(moved), -1)
                factor.add_(rows @ rows.T)
                grad = torch.linalg.solve(factor, rows).reshape(moved.shape).movedim(0, dim)
            p.sub_(grad, alpha=0.1)
        return loss


def made_by(module, name, **settings):
    """`module.name(parameters, **settings)`; skips where the module or its class is missing."""

    def make(model):
        trained = [p for p in model.parameters() if p.requires_grad]
        made = getattr(importing(module), name, None)
        if made is None:
            pytest.skip(f"{module} has no {name}: it is too old")
        return made(trained, **settings)

    return make


def importing(module):
    return pytest.importorskip(module, reason=f"{module} is not installed (pip install 'reprune[dev]')")


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def lookahead(model):
    return importing("timm.optim").Lookahead(sgd(model), k=2)


def accelerated(model):
    return importing("accelerate").Accelerator(cpu=True).prepare(sgd(model))


def of_lightning(model):
    return importing("lightning.pytorch.core.optimizer").LightningOptimizer(sgd(model))


def of_fabric(model):
    fabric = importing("lightning.fabric").Fabric(accelerator="cpu", devices=1)
    return importing("lightning.fabric.wrappers")._FabricOptimizer(sgd(model), fabric.strategy)


def local_sgd(model):
    averagers = importlib.import_module("torch.distributed.algorithms.model_averaging.averagers")
    return PostLocalSGDOptimizer(sgd(model), averagers.PeriodicModelAverager(period=2, warmup_steps=0))


def zero(model):
    return ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)


CASES = {
    **{
        f"torch `{name}`": Case(made_by("torch.optim", name, lr=0.01))
        for name in "Adadelta Adagrad Adam Adamax AdamW ASGD NAdam RAdam RMSprop Rprop SGD".split()
    },
    "torch `Adafactor`": Case(made_by("torch.optim", "Adafactor"), SHAPE, ANEW),
    "torch `LBFGS`": Case(made_by("torch.optim", "LBFGS", lr=0.1, max_iter=2), FLAT, ANEW),
    "torch `Muon`": Case(made_by("torch.optim", "Muon"), network="linear", layers="linear"),
    "torch `SparseAdam`": Case(made_by("torch.optim", "SparseAdam", lr=0.01), network="embedding"),
    **{
        f"timm `{name}`": Case(made_by("timm.optim", name, lr=0.01))
        for name in "AdaBelief Adan AdamP Adopt Lamb Lars Lion MADGRAD NAdamW RMSpropTF SGDP".split()
    },
    "timm `Lookahead`": Case(lookahead),
    "timm `Kron`": Case(made_by("timm.optim.kron", "Kron"), OWN, OWN),
    "torchao `AdamW8bit`": Case(made_by("torchao.optim", "AdamW8bit"), CODES, ANEW, "wide"),
    "torchao `AdamW4bit`": Case(made_by("torchao.optim", "AdamW4bit"), CODES, ANEW, "wide"),
    "`LightningOptimizer`": Case(of_lightning),
    "Fabric's optimizer": Case(of_fabric),
    "accelerate `AcceleratedOptimizer`": Case(accelerated),
    "torch `PostLocalSGDOptimizer`": Case(local_sgd),
    "torch `ZeroRedundancyOptimizer`": Case(zero, OWN, OWN),
    "SAM around SGD": Case(lambda m: SAM(m.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)),
    "Shampoo (factors in a list)": Case(lambda m: Shampoo(m.parameters()), LIST, ANEW),
}
