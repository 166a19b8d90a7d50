"""Parameters that a module holds by another name, in a container, are replaced there too."""

import functools
import types
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reprune
from tests.helpers.masking import difference, masked, randomize

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

HOLD = {
    "tuple": (lambda w, b: (w, b), lambda h, x: F.conv2d(x, *h)),
    "list": (lambda w, b: [[w], b], lambda h, x: F.conv2d(x, h[0][0], h[1])),
    "dictionary": (lambda w, b: {"w": w, "b": (b,)}, lambda h, x: F.conv2d(x, h["w"], *h["b"])),
    "ordered": (lambda w, b: OrderedDict(weight=w, bias=b), lambda h, x: F.conv2d(x, **h)),
    "partial": (lambda w, b: functools.partial(F.conv2d, weight=w, bias=b), lambda h, x: h(x)),
}


@pytest.mark.parametrize("name", HOLD)
def test_what_is_held_is_the_new_parameter(name):
    hold, call = HOLD[name]
    layers = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1)
    model = randomize(nn.Sequential(*layers)).double().eval()
    model[1].held = hold(model[1].weight, model[1].bias)
    model[1].names = names = ("a", 1, None)
    model[1].forward = types.MethodType(lambda self, x: call(self.held, x), model[1])
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    plan = reprune.make_plan(model, X, sparsity=0.5, rule="uniform")
    expected = masked(model, plan.slices)(X)
    reprune.apply(plan, model, optimizer)
    assert model[1].weight.shape == (4, 4, 1, 1)
    assert model[1].names is names
    before = model(X)
    assert difference(before, expected) < 1e-9
    before.square().sum().backward()
    optimizer.step()
    assert model[1].weight.grad is not None
    assert not torch.equal(model(X), before)
