"""Every pass of a model is alike, whatever it draws, caches or initialises: no layer is lost by it."""

import functools
import itertools
import random
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from reprune.graph import build_graph
from reprune.graph.blame import NotRepeatableError, find_guilty
from reprune.graph.certificate import FAILS, Failure, Fault

X = torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
CACHE = {}
SEEN = weakref.WeakKeyDictionary()


@pytest.fixture(params=["values", "shapes"])
def both_ways(request, monkeypatch):
    """A small model is traced with values, a large one for its shapes."""
    monkeypatch.setattr("reprune.graph.traced.LARGE_BYTES", 2**60 if request.param == "values" else 0)


DRAWS = {
    "random": random.random,
    "numpy": lambda: np.random.rand(),  # noqa: NPY002  (the one that modules use)
    "permutation": lambda: np.random.permutation(4)[0] / 4,  # noqa: NPY002
    "torch": lambda: torch.rand(1).item(),
    "bernoulli": lambda: float(torch.bernoulli(torch.tensor(0.5))),
    "integer": lambda: int(torch.randint(10, (1,))) / 10,
}


class Block(nn.Module):
    """Stochastic depth, behind a dropout that draws as many numbers as there are channels."""

    def __init__(self, draw):
        super().__init__()
        self.draw = draw
        self.a, self.b, self.drop = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Dropout(0.1)

    def forward(self, x):
        if self.training and self.draw() < 0.5:
            return x
        return x + self.b(self.drop(torch.relu(self.a(x))))


def stochastic(draw):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), *(Block(draw) for _ in range(4)), nn.Conv2d(8, 2, 1))


@pytest.mark.parametrize("kind", DRAWS)
def test_branches_by_random_numbers(kind):
    """All blocks are found, whatever the generators' states, which are as they were."""
    for seed in range(2):
        model = stochastic(DRAWS[kind])
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        before = states()
        plan = reprune.make_plan(model, X, sparsity=0.5, rule="uniform")
        assert list(plan.keep) == [f"{k}.a" for k in range(1, 5)]
        assert states() == before


def states():
    numpy = np.random.get_state(legacy=False)["state"]  # noqa: NPY002
    return torch.get_rng_state().tolist(), random.getstate(), numpy["key"].tolist(), numpy["pos"]


class OwnGenerators(nn.Module):
    def __init__(self):
        super().__init__()
        self.torch = torch.Generator().manual_seed(1)
        self.python, self.numpy = random.Random(1), np.random.default_rng(1)

    def forward(self, x):
        drawn = torch.rand(1, generator=self.torch) + self.python.random() + self.numpy.random()
        torch.manual_seed(3)
        return x * float(drawn)


def test_generators_of_the_model():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), OwnGenerators(), nn.Dropout(0.5), nn.Conv2d(8, 2, 1))
    before = model[1].torch.get_state(), model[1].python.getstate(), model[1].numpy.bit_generator.state
    assert [group.name for group in build_graph(model, X).groups] == ["0"]
    assert torch.equal(model[1].torch.get_state(), before[0])
    assert (model[1].python.getstate(), model[1].numpy.bit_generator.state) == before[1:]


@functools.lru_cache
def ramp(width, device):
    return torch.arange(width, device=device) * 1.0


class Head(nn.Module):
    """Adds a grid that it makes once."""

    shared = None

    def __init__(self, kind):
        super().__init__()
        self.kind, self.conv, self.calls = kind, nn.Conv2d(8, 4, 1), 0
        self.grid, self.grids = None, [None]

    def forward(self, x):
        return self.conv(x) + getattr(self, self.kind)(x)

    def make(self, x):
        return torch.arange(x.shape[-1], device=x.device) * 1.0

    def attribute(self, x):
        if self.grid is None:
            self.grid = self.make(x)
        return self.grid

    def element(self, x):
        if self.grids[0] is None:
            self.grids[0] = self.make(x)
        return self.grids[0]

    def buffer(self, x):
        if "ramp" not in self._buffers:
            self.register_buffer("ramp", self.make(x))
        return self.ramp

    def counter(self, x):
        self.calls += 1
        return self.conv(x) * 0.5 if self.calls <= 2 else 0.0

    def lru_cache(self, x):
        return ramp(x.shape[-1], x.device)

    def dictionary(self, x):
        return CACHE.setdefault(x.shape[-1], None) if CACHE.get(x.shape[-1]) is not None else self._fill(x)

    def _fill(self, x):
        CACHE[x.shape[-1]] = self.make(x)
        return CACHE[x.shape[-1]]

    def by_shape(self, x):
        if x.shape not in CACHE:
            CACHE[x.shape] = self.make(x)
        return CACHE[x.shape]

    def by_module(self, x):
        if self not in SEEN:
            SEEN[self] = self.make(x)
        return SEEN[self]

    def of_class(self, x):
        if Head.shared is None:
            Head.shared = self.make(x)
        return Head.shared

    def like_the_input(self, x):
        if "ones" not in CACHE:
            CACHE["ones"] = x.new_ones(x.shape[-1]) * torch.tensor([2.0], device=x.device)
        return CACHE["ones"]


def cached(kind):
    torch.manual_seed(0)
    layers = [(nn.Conv2d(3 if k == 0 else 8, 8, 3, padding=1), nn.ReLU()) for k in range(3)]
    return nn.Sequential(*itertools.chain(*layers), Head(kind))


OUTSIDE = ["lru_cache", "dictionary", "by_shape", "by_module", "of_class", "like_the_input"]


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("kind", ["attribute", "element", "buffer", "counter", *OUTSIDE])
def test_caches_cost_no_layers_and_hold_values(kind, warm, both_ways):
    CACHE.clear()
    SEEN.clear()
    ramp.cache_clear()
    Head.shared = None
    model = cached(kind).eval()
    if warm:
        model(X)
    small, plan = reprune.prune(model, X, sparsity=0.5, rule="uniform")
    assert list(plan.keep) == ["0", "2", "4"]
    assert not model(X).is_meta
    assert not small(X).is_meta


class Unlike(nn.Module):
    """Runs otherwise every time."""

    count = itertools.count()

    def forward(self, x):
        for _ in range(next(self.count) % 7):
            x = torch.sigmoid(x)
        return x


def test_a_model_that_is_never_the_same_ends_the_search(monkeypatch):
    passes = []
    at_begin = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda *args: passes.append(0) or at_begin(*args))
    convs = [nn.Conv2d(3 if k == 0 else 4, 4, 1) for k in range(12)]
    graph = build_graph(nn.Sequential(*convs, Unlike(), nn.Conv2d(4, 2, 1)), X)
    assert not graph.groups
    assert all("does not run alike twice" in graph.skipped[str(k)] for k in range(12))
    assert len(passes) / 13 <= 24


class Scattered(nn.Module):
    """Writes what a convolution gives to places by number, one image after the other."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 64, 1), nn.Conv2d(64, 2, 1)

    def forward(self, x):
        given = self.one(x)
        out = given.new_zeros(given.shape)
        out[torch.arange(x.shape[0] - 1, -1, -1)] = given
        return self.two(out)


def test_what_is_written_by_number(both_ways):
    """The numbers are made up for the certificate, where no two threads may write to one place."""
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        traced = reprune.trace(Scattered(), torch.zeros(500, 3, 7, 7))
        plans = [reprune.make_plan(traced.model, traced, sparsity=0.5, rule="uniform") for _ in range(20)]
    finally:
        torch.set_num_threads(threads)
    assert [len(plan.keep["one"]) for plan in plans] == [32] * 20


def blamed(reason, *answers):
    """(what is blamed, how often was certified) where a slice of the only group fails for `reason`."""
    failure, said = Failure((Fault(reason, frozenset({1}), 0),)), []

    def certify(kept):
        said.append(kept.all())
        return failure if answers[len(said) - 1] else None

    group = SimpleNamespace(name="a", atoms=np.arange(3))
    return find_guilty([group], np.array([True, False, True]), certify), said


def test_a_model_that_runs_otherwise_each_time_is_not_blamed_on_a_group():
    with pytest.raises(NotRepeatableError):
        blamed("calls something else", True, True, False, False)


def test_a_slice_that_cannot_run_needs_no_run_of_the_model_unsliced():
    reason = f"{FAILS} RuntimeError: a shape"
    assert blamed(reason, True, False) == ({"a": reason}, [False, True])
    with pytest.raises(NotRepeatableError):
        blamed(reason, True, True, True)
