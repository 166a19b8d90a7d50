"""A layer that the certificate refuses takes no other with it, and few passes find it."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reprune
from reprune.graph import build_graph
from reprune.graph.propagation import Propagation
from reprune.graph.rules import rule_of
from reprune.graph.state import Call

INPUT = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Chain(nn.Module):
    """A stem, blocks, and `odd` before some of the blocks; counts how often it runs."""

    runs = 0

    def __init__(self, odd, before, blocks=6, width=16):
        super().__init__()
        torch.manual_seed(0)
        self.odd, self.before = odd, before
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU()) for _ in range(blocks)
        )
        self.head = nn.Conv2d(width, 4, 1)

    def forward(self, x):
        Chain.runs += 1
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = block(self.odd(x) if number in self.before else x)
        return self.head(x)

    def feeding(self):
        """The layers whose channels `odd` sees."""
        return {f"blocks.{number - 1}.0" if number else "stem" for number in self.before}


def refuse_others(x):
    if x.shape[1] != 16:
        raise KeyError("sixteen channels")
    return x


def as_often_as_wide(x):
    for _ in range(x.shape[1] // 4):
        x = x.relu()
    return x


ODD = {
    "group norm": lambda x: F.group_norm(x, 4),
    "batch norm": lambda x: F.batch_norm(x, torch.zeros(16), torch.ones(16)),
    "view of constants": lambda x: x.view(len(x), 4, 4, *x.shape[2:]).transpose(1, 2).flatten(1, 2),
    "scaled by the width": lambda x: x / x.shape[1],
    "scaled by its root": lambda x: x * x.shape[1] ** -0.5,
    "other branch": lambda x: x * 2 + 1 if x.shape[1] == 16 else x,
    "one more call": lambda x: x if x.shape[1] == 16 else x.sin(),
    "loop": as_often_as_wide,
    "error": refuse_others,
    "roll": lambda x: x.roll(8, 1) * x,
    "pad": lambda x: F.pad(x, (0, 0, 0, 0, 0, 16 - x.shape[1])),
    "number out of numpy": lambda x: x + float(x.numpy().shape[1]),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("before", [(0,), (1, 3, 4)])
def test_only_what_is_at_fault_stays_whole(name, before):
    model = Chain(ODD[name], before)
    Chain.runs = 0
    graph = build_graph(model, INPUT)
    assert graph.skipped.keys() == {"head", *model.feeding()}
    assert all(graph.skipped.values())
    assert {group.name for group in graph.groups} == {
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
    } - graph.skipped.keys()
    assert Chain.runs <= 2 * (4 + len(before))  # two passes each; no halves of halves


def test_the_other_layers_are_pruned():
    plan = reprune.make_plan(Chain(ODD["group norm"], (0,)), INPUT, sparsity=0.5, rule="uniform")
    assert {name: len(kept) for name, kept in plan.keep.items()} == {f"blocks.{k}.0": 8 for k in range(6)}
    assert "native_group_norm" in plan.skipped["stem"]
    assert "not pruned: stem" in str(plan)


def test_many_layers_at_fault():
    """The number of passes does not grow with them where the slice runs to its end."""
    model = Chain(ODD["scaled by the width"], tuple(range(0, 20, 2)), blocks=20, width=4)
    Chain.runs = 0
    graph = build_graph(model, INPUT)
    assert graph.skipped.keys() == {"head", *model.feeding()}
    assert Chain.runs <= 2 * 5


class WidthOfAnother(nn.Module):
    """What happens to the channels of `b` depends on how many `a` has."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Conv2d(3, 16, 1) for _ in range(3))
        self.d = nn.Conv2d(48, 16, 1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        a, b, c = self.a(x), self.b(x), self.c(x)
        return self.head(self.d(torch.cat([a, b * a.shape[1], c], 1)))


def test_the_guilty_group_is_found_when_the_fault_shows_elsewhere():
    graph = build_graph(WidthOfAnother(), INPUT)
    assert graph.skipped.keys() == {"a", "head"}
    assert [group.name for group in graph.groups] == ["b", "c", "d"]


class TwoMeet(nn.Module):
    """Where it fails, channels of two layers are at hand, and one of them is to blame."""

    def __init__(self, wrong):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 16, 1), nn.Conv2d(3, 16, 1)
        self.wrong = wrong
        self.head = nn.Conv2d(32, 4, 1)

    def forward(self, x):
        both = torch.cat([self.a(x), self.b(x)], 1)
        if self.wrong in "ab" and getattr(self, self.wrong).weight.shape[0] != 16:
            raise RuntimeError("too narrow")
        return self.head(both)


@pytest.mark.parametrize("wrong", ["a", "b"])
def test_one_of_two_layers_that_meet_is_refused(wrong):
    graph = build_graph(TwoMeet(wrong), INPUT)
    assert graph.skipped == {
        wrong: "the sliced model fails with RuntimeError: too narrow",
        "head": "is an output of the model",
    }


class FailsInTraining(nn.Module):
    """Its error in training mode speaks of sizes, sliced or not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.a(x)
        if self.training:
            raise RuntimeError(f"cannot train with {list(x.shape)}")
        return self.head(self.b(x))


def test_a_model_that_fails_in_training_mode_anyway():
    plan = reprune.make_plan(FailsInTraining(), INPUT, sparsity=0.5, rule="uniform")
    assert {name: len(kept) for name, kept in plan.keep.items()} == {"a": 8, "b": 8}
    assert "traced in evaluation mode only" in plan.notes[0]


def test_a_guess_about_another_split_pins_and_says_so():
    """The full model's guesses are repeated in the slice, which may split other tensors before."""
    x = torch.zeros(1, 8, 5)
    known = Propagation({}, {}, guesses=[4])
    known.set(x, [None, np.arange(8), None], is_activation=True)
    call = Call(torch.ops.aten.view.default, (x, [1, 4, 2, 5]), {})
    call.out = x.view(1, 4, 2, 5)
    rule_of(call)(known, call, True)
    (pin,) = known.constraints.pins
    assert np.array_equal(pin[0], np.arange(8))
    assert pin[1] == "is split otherwise by aten.view.default once some channels are removed"
