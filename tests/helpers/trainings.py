"""Small trainings and their files, for tests of what goes on from a file."""

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.optim.swa_utils import AveragedModel

import reprune
from tests.helpers.digests import digest
from tests.helpers.networks import images, small_resnet

X = images(2)
SGD = {"lr": 0.05, "momentum": 0.9}


def build(optimizer=None, network=None, ema=True, **settings):
    model = small_resnet(**{"blocks": 1, **(network or {})})
    optimizer = (optimizer or (lambda p: torch.optim.SGD(p, **SGD)))(list(model.parameters()))
    others = {"s": StepLR(optimizer, 1), "g": torch.Generator().manual_seed(3)}
    if ema:
        others["ema"] = AveragedModel(model, use_buffers=True)
    settings = {
        "sparsity": 0.5,
        "interval": 1,
        "until": 3,
        "copies": [others["ema"]] if ema else [],
        **settings,
    }
    return model, optimizer, reprune.Pruner(model, optimizer, X, **settings), others


def epoch(model, optimizer, pruner, others):
    model.train()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images(8)), torch.arange(8) % 5).backward()
    optimizer.step()
    others["ema"].update_parameters(model)
    others["s"].step()
    pruner.step()


def everything(model, optimizer, pruner, others):
    return digest(model, optimizer, pruner, *others.values())


def file_of(path, epochs=1, mode="shrink"):
    """A training of so many epochs, and its file."""
    training = build(mode=mode)
    for _ in range(epochs):
        epoch(*training)
    if epochs > 3:
        training[2].finalize()
    reprune.save_training(path, *training)
    return training
