"""Operations that write to a given tensor, `out=`: an empty one takes the size of the result."""

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from reprune.graph import traced
from tests.helpers.masking import difference, masked, randomize


class Toy(nn.Module):
    """Two convolutions side by side, what a function does to both, and one behind."""

    def __init__(self, between):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.between = between
        self.room = torch.empty(0, dtype=torch.float64)
        self.register_buffer("buffer", torch.empty(0, dtype=torch.float64))

    def forward(self, x):
        return self.c(self.between(self, self.a(x), self.b(x)))


def empty(dtype=torch.float64):
    return torch.empty(0, dtype=dtype)


def returned(_, a, b):
    return torch.add(a, b, out=empty())


def given(_, a, b):
    out = empty()
    torch.mul(a, b, out=out)
    return torch.clamp(out, min=0, out=out)


def one_after_the_other(_, a, b):
    out = empty()
    torch.mean(b, (2, 3), keepdim=True, out=out)
    factor = out.sigmoid()
    out.resize_(0)
    return torch.mul(a, factor, out=out)


def joined(_, a, b):
    both = torch.cat([a, b], out=empty())
    return both[: len(a)] * both[len(a) :]


def largest(_, a, b):
    values, _ = torch.max(b, 3, keepdim=True, out=(empty(), empty(torch.long)))
    return a * values


def of_numbers(_, a, b):
    return a * torch.ones(b.shape[1:], out=empty()) + b


def kept_for_later(toy, a, b):
    return torch.add(a, b, out=toy.room)


def registered(toy, a, b):
    return torch.add(a, b, out=toy.buffer)


def with_channels_last(_, a, b):
    out = torch.add(*(x.contiguous(memory_format=torch.channels_last) for x in (a, b)), out=empty())
    return out.permute(0, 2, 3, 1).view(-1, a.shape[1]).view(len(a), 6, 6, -1).permute(0, 3, 1, 2)


INPUT = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def toy(between):
    return randomize(Toy(between).double()).eval()


@torch.no_grad()
@pytest.mark.parametrize("with_values", [True, False], ids=("with values", "without values"))
@pytest.mark.parametrize(
    "between",
    [
        returned,
        given,
        one_after_the_other,
        joined,
        largest,
        of_numbers,
        kept_for_later,
        registered,
        with_channels_last,
    ],
    ids=lambda between: between.__name__,
)
def test_a_network_that_writes_to_an_empty_tensor_is_pruned(between, with_values, monkeypatch):
    monkeypatch.setattr(traced, "LARGE_BYTES", 2**30 if with_values else 0)
    model = toy(between)
    plan = reprune.make_plan(model, INPUT, keep={"a": 5, "b": 5}, scope="all")
    assert plan.keep["a"].size == plan.keep["b"].size == 5
    assert model.room.shape == model.buffer.shape == (0,)
    expected = masked(model, plan.slices)(INPUT)
    for x in (model.room, model.buffer):
        x.resize_(0)
    reprune.apply(plan, model)
    assert difference(model(INPUT), expected) < 1e-9


def with_the_width(_, a, b):
    ones = torch.ones_like(a[0, :, 0, 0])
    return (a + b) * torch.sum(ones, 0, keepdim=True, out=torch.empty(1, dtype=a.dtype))


def of_a_fixed_size(_, a, b):
    return torch.add(a, b, out=torch.empty(len(a), 8, 6, 6, dtype=a.dtype))


def turned_round(_, a, b):
    return torch.index_select(a + b, 1, torch.arange(a.shape[1]).flip(0), out=empty())


@torch.no_grad()
@pytest.mark.parametrize(
    "between, why",
    [
        (with_the_width, "its calls depend on the number of channels"),
        (of_a_fixed_size, r"is written to a tensor of another size by aten\.add\.out"),
        (turned_round, "a cannot be pruned"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_is_written_to_a_given_tensor_is_checked(between, why):
    with pytest.raises(ValueError, match=why):
        reprune.make_plan(toy(between), INPUT, keep={"a": 5, "b": 5}, scope="all")


def over_what_it_shows(_, a, b):
    torch.mul(b, 2, out=a.detach().resize_(0))
    return a


def shown_before(_, a, b):
    out = torch.mul(a, 2, out=empty())
    shown = out[:]
    torch.mul(b, 3, out=out.resize_(0))
    return shown


@torch.no_grad()
@pytest.mark.parametrize("with_values", [True, False], ids=("with values", "without values"))
@pytest.mark.parametrize(
    "between",
    [over_what_it_shows, shown_before],
    ids=lambda between: between.__name__,
)
def test_what_shows_the_memory_of_a_tensor_that_is_resized_stays(between, with_values, monkeypatch):
    """Its own labels say nothing about what is in it."""
    monkeypatch.setattr(traced, "LARGE_BYTES", 2**30 if with_values else 0)
    with pytest.raises(ValueError, match="a: shares its memory with "):
        reprune.make_plan(toy(between), INPUT, sparsity=0.5, rule="uniform", scope="all")


@torch.no_grad()
def test_a_result_that_a_pass_leaves_elsewhere_stays_whole():
    left = []

    def between(toy, a, b):
        left.append(torch.add(a, b, out=toy.room)[:1])
        return toy.room * 1

    model = toy(between)
    reprune.make_plan(model, INPUT, keep={"a": 5, "b": 5}, scope="all")
    assert model.room.shape == (0,)
    assert all(np.isfinite(one.numpy()).all() for one in left)


@torch.no_grad()
def test_memory_that_an_operation_enlarges_has_its_values_afterwards():
    model = toy(lambda toy, a, b: torch.add(a, b, out=toy.room.resize_(0)))
    model.room = torch.arange(3, dtype=torch.float64)
    plan = reprune.make_plan(model, INPUT, keep={"a": 5, "b": 5}, scope="all")
    assert plan.keep["a"].size == 5
    assert model.room.tolist() == [0, 1, 2]
