"""What models may be: loops, several inputs, meta tensors, paths that the data decides, operations of one's
own, and operations that cannot be traced."""

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from reprune.graph import build_graph, register_rule
from reprune.graph.rules import CUSTOM
from tests.helpers.masking import Toy, exact, randomize
from tests.helpers.random_networks import RandomNetwork

X = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Looped(Toy):
    """One convolution is called three times."""

    def __init__(self):
        super().__init__()
        self.again = nn.Conv2d(8, 8, 3, padding=1)

    def between(self, x):
        for _ in range(3):
            x = torch.relu(self.again(x))
        return x


def test_a_module_in_a_loop():
    graph = exact(randomize(Looped().double()).eval(), X, seeds=range(3))
    assert [[p.name for p in group.producers] for group in graph.groups] == [["a", "again"], ["b"]]


class OnlyInTraining(Toy):
    """A head that evaluation never sees."""

    def __init__(self):
        super().__init__()
        self.auxiliary = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.a(x)
        out = self.c(torch.relu(self.b(x))).mean((2, 3))
        return (out, self.auxiliary(x)) if self.training else out


def test_heads_of_training_shrink_with_the_rest():
    small, plan = reprune.prune(OnlyInTraining().double(), X, keep={"a": 3}, rule="uniform")
    assert small.auxiliary.in_channels == 3
    assert plan.skipped["auxiliary"] == "is an output of the model"
    small.train()(X)[1].sum().backward()


class Nested(Toy):
    """Images in a list, a dictionary beside them; an object comes out."""

    def forward(self, images, extra):
        x = super().forward(torch.stack(images)) * extra["gain"][0]

        class Output:
            pass

        out = Output()
        out.scores = x
        return out


def test_nested_inputs_and_an_object_as_output():
    inputs = ([X[0], X[1]], {"gain": (torch.ones(1, dtype=torch.float64),)})
    small, plan = reprune.prune(Nested().double(), inputs, sparsity=0.5, rule="uniform")
    assert plan.skipped == {"c": "is an output of the model"}
    assert small(*inputs).scores.shape == (2, 2)


class Boxes(nn.Module):
    """How many points are looked at twice is up to the data, and so is whether any are."""

    def __init__(self):
        super().__init__()
        self.a, self.score, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 1), nn.Linear(8, 6)
        self.c = nn.Linear(6, 2)

    def forward(self, x):
        x = torch.relu(self.a(x))
        points = x.permute(0, 2, 3, 1)[self.score(x)[:, 0] > 0]
        found = self.c(torch.relu(self.b(points)))
        for _ in range(len(points)):  # as many statements about channels that stay
            found = found + self.c.bias
        return found if not len(found) else found - found.mean(0) * len(found)


def test_paths_that_the_data_decides():
    torch.manual_seed(0)
    graph = exact(Boxes().double().eval(), X, seeds=range(3), layers="all")
    assert graph.traced.data_dependent
    assert [group.name for group in graph.groups] == ["a", "b"]


class NoBoxes(Boxes):
    """None of the points is looked at twice."""

    def forward(self, x):
        x = torch.relu(self.a(x))
        points = x.permute(0, 2, 3, 1)[self.score(x)[:, 0].abs() < 0]
        first, second = self.c(torch.relu(self.b(points))).split([1, 1], dim=1)
        return torch.cat([second, first], 1)


def test_detectors_that_find_nothing_on_the_example_inputs():
    torch.manual_seed(0)
    graph = exact(randomize(NoBoxes().double()).eval(), X, seeds=range(2), layers="all")
    assert graph.channels.keys() == {"a", "b", "c"}


def test_models_on_meta():
    """Groups, FLOPs and certificate need no values; selection does."""
    real = build_graph(Looped(), X.float())
    meta = build_graph(Looped().to("meta"), X.float().to("meta"))
    assert [g.name for g in meta.groups] == [g.name for g in real.groups]
    assert meta.traced.flops.full == real.traced.flops.full
    with pytest.raises(ValueError, match="model: its tensors are on the device 'meta'"):
        reprune.make_plan(Looped().to("meta"), X.float().to("meta"), sparsity=0.5)


def both_ways(model, x, monkeypatch):
    """The graph that a large model would get, traced without values if it can be, and the one with them."""
    graphs = []
    for bytes_ in (0, 2**60):
        monkeypatch.setattr("reprune.graph.traced.LARGE_BYTES", bytes_)
        graphs.append(build_graph(model, x, layers="all"))
    assert not graphs[1].traced.shapes
    return graphs


def same(one, other):
    """The same groups of the same channels, with the same kernels."""
    assert np.array_equal(one.traced.atoms.atom_of, other.traced.atoms.atom_of)
    assert one.traced.atoms.pinned == other.traced.atoms.pinned
    assert one.skipped == other.skipped
    assert one.traced.flops.full == other.traced.flops.full
    for a, b in zip(one.groups, other.groups, strict=True):
        assert np.array_equal(a.atoms, b.atoms)
        for p, q in zip(a.producers, b.producers, strict=True):
            assert p.name == q.name
            assert torch.equal(p.kernel, q.kernel)
            assert np.array_equal(p.rows, q.rows)


@pytest.mark.parametrize("seed", range(6))
def test_large_models_need_no_values(seed, monkeypatch):
    """A trace of shapes finds what a trace with values finds, and the kernels are the model's own."""
    torch.manual_seed(seed)
    model = randomize(RandomNetwork(seed), seed).eval()
    shapes, values = both_ways(model, torch.randn(2, 3, 8, 8), monkeypatch)
    assert shapes.traced.shapes
    same(shapes, values)
    own = {t.untyped_storage().data_ptr() for t in model.parameters()}
    assert all(p.kernel.untyped_storage().data_ptr() in own for g in shapes.groups for p in g.producers)


class MadeKernel(Toy):
    """A kernel that is computed from its parameter."""

    def __init__(self):
        super().__init__()
        self.made = nn.Conv2d(8, 8, 3, padding=1)

    def between(self, x):
        return nn.functional.conv2d(x, self.made.weight * 2, self.made.bias, padding=1)


class ByValue(Toy):
    """What it does depends on a weight's value."""

    def between(self, x):
        return -x if float(self.a.bias[0]) > 1e9 else x


class WideTranspose(Toy):
    """Matrices on the left of their layers' usual place, square ones too."""

    def __init__(self):
        super().__init__()
        self.left = nn.Parameter(torch.randn(8, 8) / 3)

    def between(self, x):
        return (x.movedim(1, 3) @ self.left).movedim(3, 1)


@pytest.mark.parametrize("kind,without", [(MadeKernel, False), (ByValue, False), (WideTranspose, True)])
def test_models_that_shapes_do_not_tell_enough_of(kind, without, monkeypatch):
    shapes, values = both_ways(randomize(kind()).eval(), X.float(), monkeypatch)
    assert shapes.traced.shapes == without
    same(shapes, values)
    assert shapes.groups


@torch.library.custom_op("reprune_tests::squash", mutates_args=())
def squash(x: torch.Tensor, gain: float) -> torch.Tensor:
    return x / (1 + gain * x.abs())


@squash.register_fake
def _(x, gain):
    return torch.empty_like(x)


class Custom(Toy):
    def between(self, x):
        return squash(x, 2.0)


def channelwise(known, call, is_activation):
    """Written out: the output carries what the input carries."""
    known.set(call.out, list(known.state(call["x"]).dims), is_activation)


@pytest.mark.parametrize("rule", ["relu", channelwise])
def test_rules_for_operations_of_ones_own(rule):
    model = randomize(Custom().double()).eval()
    try:
        graph = build_graph(model, X)
        assert graph.skipped["a"] == "reaches reprune_tests.squash.default, which has no rule"
        register_rule("reprune_tests::squash", rule)
        assert [group.name for group in exact(model, X, seeds=range(3)).groups] == ["a", "b"]
    finally:
        CUSTOM.clear()


def broken(known, call, is_activation):
    raise IndexError("no such dimension")


def test_an_operation_that_cannot_be_traced_is_named():
    class Failing(Toy):
        def between(self, x):
            return x.view(-1, 7)

    with pytest.raises(ValueError, match=r"fails with RuntimeError: .*last operation was aten\.view"):
        build_graph(Failing().double(), X)
    try:
        register_rule("reprune_tests::squash", broken)
        with pytest.raises(
            ValueError, match=r"through reprune_tests\.squash\.default: .* IndexError: no such"
        ):
            build_graph(Custom().double(), X)
    finally:
        CUSTOM.clear()


@pytest.mark.parametrize(
    "operation, rule, message",
    [
        ("squash", "relu", "operation: expected a name such as 'mylib::scale'; got 'squash'"),
        ("a::b", "no_such_thing", "rule: expected a function or the name of an ATen operation"),
        ("a::b", 3, "rule: expected a function or a name; got 3"),
    ],
)
def test_what_a_rule_must_be(operation, rule, message):
    with pytest.raises(ValueError, match=message):
        register_rule(operation, rule)


def test_the_time_limit():
    with pytest.raises(
        TimeoutError, match=r"time_limit: tracing took longer than 1e-09 s; it had come to aten"
    ):
        reprune.make_plan(Looped(), X.float(), sparsity=0.5, time_limit=1e-9)
    with pytest.raises(ValueError, match="time_limit: expected a positive number of seconds or None; got 0"):
        reprune.make_plan(Looped(), X.float(), sparsity=0.5, time_limit=0)


def test_progress_of_tracing():
    """As the passes come to the model's tensors; the end is told once."""
    told = []
    build_graph(Looped(), X.float(), lambda *report: told.append(report))
    done = [count for _, count, _ in told]
    (total,) = {total for _, _, total in told}
    assert done == sorted(done)
    assert done[0] == 0
    assert done.count(total) == 1
    assert len(set(done)) > 8
