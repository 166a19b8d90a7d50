"""What a forward pass puts out stays whole, wherever it is; inputs are found wherever they are."""

import collections
import functools
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Independent, Normal

import reprune
from reprune.graph import build_graph

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
STORE: list[Any] = []


@pytest.fixture(params=["values", "shapes"])
def both_ways(request, monkeypatch):
    """A small model is traced with values, a large one for its shapes."""
    monkeypatch.setattr("reprune.graph.traced.LARGE_BYTES", 2**60 if request.param == "values" else 0)


@dataclass
class Box:
    value: Any


@dataclass(slots=True)
class Slim:
    value: Any


class Bare:
    """As detectron2's Instances; `around` is any private name."""

    def __init__(self, value):
        self._fields = {"logits": value}


class Catalogue(collections.abc.Mapping):
    def __init__(self, value):
        self._value = value

    def __getitem__(self, key):
        return self._value

    def __iter__(self):
        return iter(["only"])

    def __len__(self):
        return 1


class Row(collections.abc.Sequence):
    __slots__ = ("_value",)

    def __init__(self, value):
        self._value = value

    def __getitem__(self, k):
        return [self._value][k]

    def __len__(self):
        return 1


class Lazy:
    """Computes when it is asked."""

    def __init__(self, value):
        self._compute = functools.partial(torch.relu, value)

    @property
    def value(self):
        return self._compute()


class Sub(torch.Tensor):
    pass


Pair = collections.namedtuple("Pair", ["value", "more"])


def walked(value):
    yield 0
    yield value


def started(value):
    generator = walked(value)
    next(generator)
    return generator


def deep(value):
    for _ in range(3000):
        value = [value]
    return value


def cyclic(value):
    ring = [value]
    ring.append(Box(ring))
    return Box(ring[1])


def elsewhere(value):
    STORE.append(value)
    return len(STORE)


WRAPPERS = {
    "dataclass in a tuple": lambda y: (Box(y),),
    "dataclasses": lambda y: {"a": Box(Box([y]))},
    "slots": Slim,
    "private dictionary": lambda y: [{"instances": Bare(y)}],
    "set": lambda y: frozenset([y]),
    "key": lambda y: {y: 1},
    "generator": lambda y: (z for z in [y]),
    "started generator": started,
    "iterators": lambda y: zip(map(torch.relu, [y]), [1], strict=False),
    "closure": lambda y: lambda: y,
    "default": lambda y: lambda z=y: z,
    "method": lambda y: Box(y).__eq__,
    "named tuple": lambda y: Box(Pair(1, y)),
    "mapping": Catalogue,
    "sequence": Row,
    "distribution": lambda y: (Normal(y, 1.0, validate_args=False), 1),
    "distribution of a distribution": lambda y: Independent(Normal(y, 1.0, validate_args=False), 1),
    "lazy": Lazy,
    "array of objects": lambda y: np.array([Box(y)], dtype=object),
    "deque": lambda y: collections.deque([Box(y)]),
    "very deep": deep,
    "in a circle": cyclic,
    "data": lambda y: y.data,
    "subclass": lambda y: y.as_subclass(Sub),
    "parameter": lambda y: nn.Parameter(y, requires_grad=False),
    "numpy": lambda y: y.numpy(),
    "copied by numpy": lambda y: Box(y.numpy().copy()),
    "list of numbers": lambda y: y.tolist(),
    "capsule": torch.utils.dlpack.to_dlpack,
    "hidden behind a number": elsewhere,
}


class Net(nn.Module):
    """Two convolutions that may lose channels, and one that makes the output."""

    def __init__(self, wrap, also=False):
        super().__init__()
        torch.manual_seed(0)
        self.wrap, self.also = wrap, also
        self.a, self.b, self.out = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 6, 1)
        self.more = nn.Conv2d(6, 2, 1)

    def forward(self, x):
        y = self.out(torch.relu(self.b(torch.relu(self.a(x)))))
        return (self.wrap(y), self.more(y)) if self.also else self.wrap(y)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_outputs_in_objects_stay_whole(kind, both_ways):
    graph = build_graph(Net(WRAPPERS[kind]), X)
    STORE.clear()
    assert [group.name for group in graph.groups] == ["a", "b"]
    assert "out" in graph.skipped


IN_SIGHT = sorted(WRAPPERS.keys() - {"capsule", "hidden behind a number"})


@pytest.mark.parametrize("kind", IN_SIGHT)
def test_outputs_that_are_used_too_stay_whole(kind):
    graph = build_graph(Net(WRAPPERS[kind], also=True), X)
    assert [group.name for group in graph.groups] == ["a", "b"]
    assert graph.skipped["more"] == "is an output of the model"


class OnTheModel(Net):
    def __init__(self):
        super().__init__(lambda y: None)

    def forward(self, x):
        self.logits = self.out(torch.relu(self.b(torch.relu(self.a(x)))))


class Weakly(Net):
    def __init__(self):
        super().__init__(lambda y: None)

    def forward(self, x):
        self.logits = self.out(torch.relu(self.b(torch.relu(self.a(x)))))
        return weakref.ref(self.logits)


@pytest.mark.parametrize("kind", [OnTheModel, Weakly])
def test_outputs_left_on_the_model_stay_whole(kind, both_ways):
    graph = build_graph(kind(), X)
    assert [group.name for group in graph.groups] == ["a", "b"]


class Keeps(Net):
    """Results that are no outputs: kept for a loss, recorded by a hook, thrown away."""

    def __init__(self):
        super().__init__(lambda y: y)
        self.unused = nn.Conv2d(8, 4, 1)
        means = []
        self.b.register_forward_hook(lambda module, inputs, out: means.append(out.clone()))

    def forward(self, x):
        self.features = torch.relu(self.a(x))
        self.copies = {"features": self.features.clone()}
        self.unused(self.features)
        return self.out(torch.relu(self.b(self.features)))


def test_what_is_kept_or_thrown_away_is_no_output(both_ways):
    graph = build_graph(Keeps(), X)
    assert [group.name for group in graph.groups] == ["a", "unused", "b"]


class Batch:
    def __init__(self, images):
        self.images = images


class Residual(nn.Module):
    def __init__(self, unpack):
        super().__init__()
        torch.manual_seed(0)
        self.unpack = unpack
        self.stem, self.a = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.b, self.fc = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(self.unpack(x))
        return self.fc((x + self.b(torch.relu(self.a(x)))).mean((2, 3)))


INPUTS = {
    "object": ((Batch(X),), lambda x: x.images),
    "slots": ((Slim(Box(X)),), lambda x: x.value.value),
    "mapping": ((Catalogue(Batch(X)),), lambda x: x["only"].images),
    "closure": (((lambda inside: lambda: inside)(X),), lambda x: x()),
    "by name": ({"x": [{"image": Pair(X, 0)}]}, lambda x: x[0]["image"].value),
    "taken out": (({"x": X},), lambda x: x.pop("x")),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_in_objects_are_inputs(kind, both_ways):
    """So that residual streams are known to be such."""
    example, unpack = INPUTS[kind]
    plan = reprune.make_plan(Residual(unpack), example, sparsity=0.5, rule="uniform")
    assert list(plan.keep) == ["a"]
    assert not plan.notes
