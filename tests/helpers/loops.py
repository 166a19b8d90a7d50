"""A small network, its optimizer and its pruner, as the tests of the pruner start them."""

import torch
from torch import nn

import reprune
from tests.helpers.networks import images, small_resnet

X = images(2)


def start(mode="shrink", optimizer=None, model=None, **settings):
    model = small_resnet() if model is None else model
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    settings = {"sparsity": 0.5, "interval": 1, "until": 4, **settings}
    return model, optimizer, reprune.Pruner(model, optimizer, X, mode=mode, **settings)


def one_step(model, optimizer, seed=0):
    model.train()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images(8, seed=seed)), torch.arange(8) % 5).backward()
    optimizer.step()
