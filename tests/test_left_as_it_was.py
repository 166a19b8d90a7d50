"""Planning leaves a model as it was, whatever a forward pass changes, after errors and interrupts too."""

import collections
import contextlib
import copy
import logging
import random
import socket
import threading
import types
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import reprune
from reprune.graph import build_graph


def images():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class InitialisedByTheFirstBatch(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift, self.ready = nn.Parameter(torch.zeros(1, 8, 1, 1)), False

    def forward(self, x):
        if not self.ready:
            with torch.no_grad():
                self.shift.copy_(-x.mean((0, 2, 3), keepdim=True))
            self.ready = True
        return x + self.shift


class InitialisedThroughData(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, 8, 1, 1))
        self.register_buffer("ready", torch.tensor(0))

    def forward(self, x):
        if not self.ready:
            self.shift.data = -x.mean((0, 2, 3), keepdim=True)
            self.ready.fill_(1)
        return x + self.shift


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.tensor(0))
        self.calls, self.seen, self.last = 0, collections.deque([1]), types.SimpleNamespace(size=None)

    def forward(self, x):
        self.steps += 1
        self.calls += 1
        self.seen.append(x)
        self.last.size = x.shape
        self.kept = x
        return x


class MovingMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))

    def forward(self, x):
        self.mean.mul_(0.9).add_(x.mean((0, 2, 3)), alpha=0.1)
        return F.batch_norm(x, self.mean, torch.ones_like(self.mean), training=True)


class Marking(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 8, 1, 1))

    def forward(self, x):
        self.scale.requires_grad_(False)
        self.scale.grad = torch.ones_like(self.scale)
        self.scale.mark = True
        self.train(not self.training)
        return x * self.scale


class Replacing(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 8, 1, 1))

    def forward(self, x):
        self.scale = nn.Parameter(self.scale * 2)
        self.register_buffer("late", torch.zeros(1))
        self.add_module("more", nn.Identity())
        self.register_forward_hook(lambda *args: None)
        return x * self.scale


class Recorded(nn.Module):
    def __init__(self):
        super().__init__()
        self.records = records = []

        def hook(module, inputs, out):
            records.append(out.detach())
            hook.calls += 1

        hook.calls = 0
        self.hook = hook
        self.register_forward_hook(hook)

    def forward(self, x):
        return x


class InPlace(nn.Module):
    def forward(self, x):
        return x.relu_()


class PowerIteration(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))

    def forward(self, x):
        return self.conv(x)


CHANGING = [
    InitialisedByTheFirstBatch,
    InitialisedThroughData,
    Counting,
    MovingMean,
    Marking,
    Replacing,
    Recorded,
    InPlace,
    PowerIteration,
]


class Fuse(nn.Module):
    """Raises `error` in call number `call`."""

    def __init__(self, call, error):
        super().__init__()
        self.left, self.error = [call], error

    def __deepcopy__(self, memo):  # all copies burn one fuse
        return self

    def forward(self, x):
        self.left[0] -= 1
        if self.left[0] == 0:
            raise self.error
        return x


def network(kind, call=0, error=None):
    torch.manual_seed(0)
    fuse = Fuse(call, error) if error is not None else nn.Identity()
    return nn.Sequential(InPlace(), nn.Conv2d(3, 8, 3), kind(), nn.BatchNorm2d(8), fuse, nn.Conv2d(8, 2, 1))


def picture(one, depth=0):
    """Everything that can be seen of a model."""
    if isinstance(one, torch.Tensor):
        grad = None if one.grad is None else (id(one.grad), one.grad.tolist())
        return id(one), one._version, one.requires_grad, one.tolist(), grad, sorted(vars(one))
    if isinstance(one, nn.Module) and depth:
        return id(one)
    if isinstance(one, dict):
        return id(one), [(str(key), picture(value, depth + 1)) for key, value in one.items()]
    if isinstance(one, list | tuple | set | collections.deque):
        return id(one), [picture(value, depth + 1) for value in one]
    if isinstance(getattr(one, "__dict__", None), dict) and not isinstance(one, type) and depth < 4:
        return id(one), picture(vars(one), depth + 1)
    return id(one)


def generators():
    numpy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002  (the one that modules use)
    return torch.get_rng_state().tolist(), random.getstate(), numpy["key"].tolist(), numpy["pos"]


ENDS = {"success": None, "error": ValueError("no"), "interrupt": KeyboardInterrupt()}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("kind", CHANGING)
def test_the_model_is_as_it_was(kind, large, end, monkeypatch):
    monkeypatch.setattr("reprune.graph.traced.LARGE_BYTES", 0 if large else 2**60)
    model, x = network(kind, 2, ENDS[end]), images()
    before = [picture(module.__dict__) for module in (model, *model.modules())], picture(x), generators()
    with contextlib.suppress(ValueError, KeyboardInterrupt):
        build_graph(model, x)
    after = [picture(module.__dict__) for module in (model, *model.modules())], picture(x), generators()
    left, right = (list(one[0]) for one in (before, after))
    for one, other, module in zip(left, right, (model, *model.modules()), strict=True):
        if not isinstance(module, Fuse):
            assert one == other
    assert before[1:] == after[1:]


def test_a_graph_that_is_alive_still_has_its_backward_pass():
    """Values that are put back do not look as if they had changed."""
    model, x = network(InitialisedByTheFirstBatch), images()
    loss = (model(x.clone()) * model[2].shift.sum()).square().sum()
    model[2].ready = False
    build_graph(model, x)
    loss.backward()


class Attached(nn.Module):
    """With what cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock, self.events = threading.Lock(), {"all": [threading.Condition()]}
        self.file, self.socket = open("/dev/null"), socket.socket()  # noqa: SIM115
        self.generator, self.log = (k for k in range(3)), logging.getLogger("attached")
        self.box = types.SimpleNamespace(lock=threading.RLock(), calls=0)
        self.loss = nn.Parameter(torch.ones(1)) * 2

    def forward(self, x):
        with self.lock, self.box.lock:
            self.box.calls += 1
        return x

    def close(self):
        self.file.close()
        self.socket.close()


def test_attributes_that_cannot_be_copied():
    model = network(Attached)
    small, plan = reprune.prune(model, images(), sparsity=0.5, rule="uniform")
    assert list(plan.keep) == ["1"]
    assert small[2].lock is model[2].lock
    assert small[2].box is not model[2].box
    assert model[2].box.calls == 0
    assert not small[2].loss.requires_grad
    small(images()).sum().backward()
    model[2].close()


class Child(nn.Module):
    def forward(self, x):
        return self.call(self.parent().conv(x)) + self.record.conv(self.hidden[0](x))


class Related(nn.Module):
    """Modules that know of each other in several ways."""

    def __init__(self):
        super().__init__()
        self.conv, self.child = nn.Conv2d(8, 8, 1), Child()
        self.child.parent, self.child.hidden = weakref.ref(self), [self.conv]
        self.child.call, self.child.record = self.conv.forward, types.SimpleNamespace(conv=self.conv)

    def forward(self, x):
        return self.child(x)


def test_references_between_modules_are_those_of_the_copy():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Related(), nn.Conv2d(8, 2, 1))
    small, plan = reprune.prune(model, images(), sparsity=0.5, rule="uniform", scope="all")
    assert list(plan.keep) == ["0", "1.conv"]
    child = small[1].child
    assert child.parent() is small[1]
    assert child.hidden[0] is child.record.conv is child.call.__self__ is small[1].conv
    small(images())


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b, self.fc = (
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3),
            nn.Linear(8, 2),
        )

    def forward(self, x):
        self.features = self.b(torch.relu(self.norm(self.a(x))))
        return self.fc(self.features.mean((2, 3)))


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_kept_activations_at_the_last_event(mode):
    model = Features()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    pruner = reprune.Pruner(
        model, optimizer, images(), sparsity=0.5, rule="uniform", interval=1, until=2, mode=mode
    )
    for _ in range(2):
        optimizer.zero_grad()
        (model(images()).square().mean() + model.features.square().mean()).backward()
        optimizer.step()
        pruner.step()
    pruner.finalize()
    assert model.a.out_channels == 4


class Passing(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


MODES = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "function mode": Passing,
    "default device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("mode", MODES)
def test_pruning_works_inside_torch_modes(mode):
    """The same plan, and a small network and optimizer that go on learning."""
    model, x = Features(), images()
    usual = reprune.make_plan(model, x, sparsity=0.5, rule="uniform")
    other = copy.deepcopy(model)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    other(x).sum().backward()
    optimizer.step()
    with MODES[mode]():
        small, plan = reprune.prune(model, x, sparsity=0.5, rule="uniform")
        reprune.apply(plan, other, optimizer)
    assert {name: kept.tolist() for name, kept in plan.keep.items()} == {
        name: kept.tolist() for name, kept in usual.keep.items()
    }
    small.train()(x).sum().backward()
    other(x).sum().backward()
    optimizer.step()


def test_weights_and_inputs_made_in_inference_mode():
    with torch.inference_mode():
        model, x = network(nn.Identity), images()
    assert [group.name for group in build_graph(model, x.clone()).groups] == ["1"]
