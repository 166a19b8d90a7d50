"""Pruning while training: twelve events on a ResNet and a MobileNetV2, in both modes side by side.

The test keeps a ledger of its own, written with numpy: what value every position had when it was last there.
"""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import MobileNetV2
from torchvision.models.resnet import BasicBlock, ResNet

import reprune
from reprune.modules.slicing import named_tensors
from tests.helpers.networks import images, small_resnet

EVENTS = 12


class NarrowResNet(ResNet):
    """ResNet-18, or one with other numbers of blocks, with an eighth of its channels."""

    def __init__(self, blocks=(2, 2, 2, 2)):
        super().__init__(BasicBlock, list(blocks), num_classes=5)
        self.inplanes = 8
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.layer1 = self._make_layer(BasicBlock, 8, blocks[0])
        self.layer2 = self._make_layer(BasicBlock, 16, blocks[1], stride=2)
        self.layer3 = self._make_layer(BasicBlock, 32, blocks[2], stride=2)
        self.layer4 = self._make_layer(BasicBlock, 64, blocks[3], stride=2)
        self.fc = nn.Linear(64, 5)


class Feedforward(nn.Sequential):
    """A block of a transformer without its attention."""

    def __init__(self):
        super().__init__(nn.LayerNorm(16), nn.Linear(16, 48), nn.GELU(), nn.Linear(48, 16))

    def forward(self, x):
        return x + super().forward(x)


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, stride=4)
        self.blocks = nn.Sequential(Feedforward(), Feedforward(), Feedforward())
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.blocks(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


NETWORKS = {
    "resnet": (NarrowResNet, {"scope": "all"}),
    "short resnet": (lambda: NarrowResNet([1, 2, 1, 1]), {"scope": "all"}),
    "mobilenet": (lambda: MobileNetV2(num_classes=5, width_mult=0.25, dropout=0.0), {}),
    "tokens": (
        Tokens,
        {"layers": "linear", "rule": "uniform", "ignore": ["blocks.0"], "min_keep": {"blocks.2.*": 25}},
    ),
}


def train(model, optimizer, steps=2, seed=0):
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        x = images(8, size=16, seed=100 * seed + step)
        nn.functional.cross_entropy(model(x), torch.arange(8) % 5).backward()
        optimizer.step()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)


def index(slices, name, shape):
    kept = slices.get(name, {})
    return np.ix_(*(kept.get(dim, np.arange(size)) for dim, size in enumerate(shape)))


def values(model, optimizer):
    """{(kind, name): array} of tensors and momentum that have dimensions."""
    found = {("value", n): t for n, t in named_tensors(model).items() if t.dim()}
    for name, parameter in model.named_parameters():
        if parameter in optimizer.state:
            found["momentum", name] = optimizer.state[parameter]["momentum_buffer"]
    return {key: t.detach().numpy().copy() for key, t in found.items()}


@pytest.mark.parametrize(
    "network",
    ["short resnet", "tokens", *(pytest.param(n, marks=pytest.mark.slow) for n in ("resnet", "mobilenet"))],
)
def test_shrink_and_mask_agree_over_twelve_events(network):
    torch.manual_seed(0)
    make, how = NETWORKS[network]
    model = make()
    twin = copy.deepcopy(model)
    x = images(4, size=16)
    settings = {"sparsity": 0.5, "interval": 1, "until": EVENTS, "regrow": 0.4, **how}
    optimizer, twin_optimizer = sgd(model), sgd(twin)
    pruner = reprune.Pruner(model, optimizer, x, mode="shrink", **settings)
    masked = reprune.Pruner(twin, twin_optimizer, x, mode="mask", **settings)
    full = {name: t.shape for name, t in named_tensors(model).items()}
    ledger, slices, returned = {}, {}, 0
    train(twin, twin_optimizer, steps=1)  # so that there is momentum to overwrite
    for event in range(EVENTS):
        train(model, optimizer, seed=event)
        before = values(model, optimizer)
        for key, value in before.items():
            ledger.setdefault(key, np.zeros(full[key[1]], value.dtype))[
                index(slices, key[1], full[key[1]])
            ] = value
        alike(twin, twin_optimizer, slices, before)

        was = slices
        assert pruner.step()
        assert masked.step()
        slices = pruner.plan.slices

        # What stayed and what came back has, to the bit, the value that it had when it was last there.
        after = values(model, optimizer)
        assert after.keys() == before.keys()
        for key, value in after.items():
            np.testing.assert_array_equal(
                value, ledger[key][index(slices, *[key[1], full[key[1]]])], str(key)
            )
        returned += came_back(was, slices)
        live = list(model.parameters())
        assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(p) for p in live]
        assert set(optimizer.state) == set(live)

        # Mask mode decides alike, and computes the same.
        assert {n: {d: k.tolist() for d, k in s.items()} for n, s in slices.items()} == {
            n: {d: k.tolist() for d, k in s.items()} for n, s in masked.plan.slices.items()
        }
        model.eval(), twin.eval()
        with torch.no_grad():
            small, large = model(x), twin(x)
        assert float((small - large).abs().max()) <= 1e-6 * max(1.0, float(large.abs().max()))
        for key, value in values(twin, twin_optimizer).items():
            at = index(slices, key[1], full[key[1]])
            np.testing.assert_array_equal(value[at], after[key], str(key))
            value[at] = 0
            assert not value.any()
    assert returned > 20
    assert len(pruner.history) == len(masked.history) == EVENTS
    assert sum(pruner.history[-1].regrown.values()) == 0
    plan = pruner.finalize()
    if network == "tokens":
        assert sorted(plan.keep) == ["blocks.1.1", "blocks.2.1"]
        assert len(plan.keep["blocks.1.1"]) < 25 <= len(plan.keep["blocks.2.1"])
    assert masked.finalize().to_json() == plan.to_json()
    assert str(twin) == str(model)
    for key, value in values(twin, twin_optimizer).items():
        np.testing.assert_array_equal(value, after[key], str(key))
    train(twin, twin_optimizer)
    train(model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def alike(twin, optimizer, slices, given):
    """Bring the live part of the twin in mask mode to the values of the other network."""
    tensors = named_tensors(twin)
    for (kind, name), value in given.items():
        tensor = tensors[name] if kind == "value" else optimizer.state[tensors[name]]["momentum_buffer"]
        tensor.detach().numpy()[index(slices, name, tensor.shape)] = value


def came_back(was, now):
    return sum(
        len(np.setdiff1d(kept, was[name][dim]))
        for name, dims in now.items()
        for dim, kept in dims.items()
        if dim in was.get(name, {})
    )


def test_mask_mode_holds_zeros_through_training():
    """In training both modes are the same network: masked channels take part in nothing."""
    model, twin = small_resnet(), small_resnet()
    x = images(2)
    pruner, optimizer = [], []
    for m, mode in ((model, "shrink"), (twin, "mask")):
        optimizer.append(torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4))
        pruner.append(reprune.Pruner(m, optimizer[-1], x, flops=0.5, interval=1, until=6, mode=mode))
    for epoch in range(8):
        for k, m in enumerate((model, twin)):
            train(m, optimizer[k], seed=epoch)
            pruner[k].step()
            m.eval()
        assert str(pruner[0].plan) == str(pruner[1].plan)
        assert torch.allclose(model(x), twin(x), rtol=0, atol=1e-4)  # sums in another order, over 8 epochs
    assert pruner[0].finalize().flops[1] / pruner[0].plan.flops[0] <= 0.5
    assert pruner[0].history[-1].flops <= 0.5
    pruner[1].finalize()
    assert str(model) == str(twin)
