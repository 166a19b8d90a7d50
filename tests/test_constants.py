"""Numbers computed from a width that reach the network as tensors, which no scalar and no label shows."""

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from tests.helpers.masking import difference, masked, randomize


class Toy(nn.Module):
    """Two convolutions, and what a function does in between."""

    def __init__(self, between):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)
        self.between = between

    def forward(self, x):
        return self.b(self.between(self.norm(self.a(x))))


def kept_of(between):
    """Return the plan for half of the channels, or None; the pruned network is the masked one."""
    model = randomize(Toy(between).double()).eval()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    try:
        plan = reprune.make_plan(model, x, keep={"a": 5})
    except ValueError as error:
        return str(error)
    expected = masked(model, plan.slices)(x)
    reprune.apply(plan, model)
    assert difference(model(x), expected) < 1e-9
    return plan.keep["a"].size


def filled(x):
    made = torch.empty(1, dtype=x.dtype)
    made.fill_(1)
    return made.mul_(torch.tensor([float(x.shape[1])], dtype=x.dtype))


def written_by_numpy(x):
    made = torch.zeros(2, 6, dtype=x.dtype)
    made.numpy()[1, 3] = x.shape[1]
    return made[1] * 2


def written_by_numpy_between(x):
    made = torch.zeros(6, dtype=x.dtype)
    y = x * made
    np.asarray(made)[3] = x.shape[1]
    return y + x * made


def seeded():
    return torch.Generator().manual_seed(3)


BY_WIDTH = {
    "sum of ones": lambda x: x / torch.ones_like(x).sum(1, keepdim=True),
    "norm of ones": lambda x: x * x.new_ones(1, x.shape[1]).norm(dim=1),
    "list of numbers": lambda x: x * torch.tensor([1.0 / n for n in x.shape], dtype=x.dtype).sum(),
    "array of numpy": lambda x: x / torch.from_numpy(np.full(1, x.shape[1])),
    "view of an array": lambda x: x / torch.from_numpy(np.full(1, x.shape[1]))[None, None],
    "more than is shown": lambda x: x * torch.linspace(0, x.shape[1], 6, dtype=x.dtype),
    "written in place": lambda x: x * filled(x),
    "a place that is read": lambda x: x[..., torch.arange(6).roll(x.shape[1])],
    "written to by numpy": lambda x: x * written_by_numpy(x),
    "written to by numpy between two uses": written_by_numpy_between,
    "sizes as a tensor": lambda x: x / torch._shape_as_tensor(x)[1:2],
    "sum of numbers from a seed": lambda x: x * torch.randn(x.shape[1], generator=seeded()).sum()[None],
    "numbers from a seed": lambda x: x * torch.randn(x.shape[1], 1, 1, generator=seeded()),
    "written from a seed": lambda x: x * torch.empty(x.shape[1], 1, 1).uniform_(generator=seeded()),
    "written over": lambda x: x.new_zeros(2, 1, 6, 6).add_(torch.full((6,), x.shape[1])) + x,
}


@pytest.mark.parametrize("name", BY_WIDTH)
def test_a_tensor_that_holds_a_width_keeps_the_channels(name):
    assert "its calls depend on the number of channels" in kept_of(BY_WIDTH[name])


ALIKE = {
    "ones": lambda x: x * torch.ones_like(x) + x.new_zeros(x.shape[1], 1, 1),
    "mean of ones": lambda x: x * torch.ones_like(x).mean(1, keepdim=True),
    "grid": lambda x: x * torch.linspace(0, 1, x.shape[-1], dtype=x.dtype) + torch.arange(6)[:, None],
    "mask": lambda x: x.masked_fill(torch.ones(6, 6).tril() == 0, 0),
    "drawn": lambda x: x + 0 * torch.rand(x.shape[1], 1, 1, dtype=x.dtype),
    "drawn from a seed": lambda x: x * torch.randn(6, 6, generator=seeded(), dtype=x.dtype),
    "alike for numpy too": lambda x: x * torch.ones_like(x) + float(torch.ones(6).numpy().sum()),
    "no numbers yet": lambda x: torch.empty_like(x).copy_(x) + torch.empty_like(x).fill_(2),
    "not a number": lambda x: torch.where(torch.isnan(torch.tensor([float("nan")] * 6)), x, x * 2),
    "filled with no number": lambda x: torch.where(torch.full((6,), float("nan")) > 0, x, x * 2),
    "no number in the place of others": lambda x: x.masked_fill(x > 9, float("nan")).nan_to_num(float("nan")),
    "a tensor of no number": lambda x: torch.where(torch.tensor(float("nan")) > x, x, x * 2),
}


@pytest.mark.parametrize("name", ALIKE)
def test_a_tensor_that_holds_none_lets_them_leave(name):
    assert kept_of(ALIKE[name]) == 5


def test_what_is_made_of_the_data_is_not_compared():
    class Told(Toy):
        """Its result depends on a number that it read from what it computed."""

        def forward(self, x):
            y = self.b(self.norm(self.a(x)))
            return y, torch.tensor([float(y.sum()), 1.0]) * y[0, 0, 0, :2]

    model = randomize(Told(None).double()).eval()
    plan = reprune.make_plan(model, torch.randn(2, 3, 6, 6, dtype=torch.float64), keep={"a": 5})
    assert plan.keep["a"].size == 5


def test_what_is_made_for_as_many_as_the_data_has_is_not_compared():
    class Counted(Toy):
        """Detectors do so, with a row for each box that was found: the slice finds others."""

        def forward(self, x):
            y = self.a(x).relu()
            found = torch.nonzero(self.b(y)[:, 0, 0, 0] > self.least).squeeze(1)
            rows = y.new_zeros(len(found), y.shape[1], 1, 1)
            rows[torch.arange(len(found))] = y[found, :, :1, :1]
            counts.append(len(found))
            return self.b(rows)

    counts = []
    torch.manual_seed(1)
    model = randomize(Counted(None).double()).eval()
    x = torch.randn(8, 3, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        model.least = float(model.b(model.a(x).relu())[:, 0, 0, 0].quantile(0.6))
    plan = reprune.make_plan(model, x, keep={"a": 3})
    assert len({*counts}) > 1
    assert plan.keep["a"].size == 3


@pytest.mark.parametrize(
    "also, keeps",
    [
        (lambda y: torch.tensor([y.shape[1]]), True),
        (lambda y: {"mean of": torch.ones_like(y).sum(1)}, True),
        (lambda y: y.new_zeros(y.shape[1]), True),
        (lambda y: [torch.arange(6), y.new_ones(y.shape[1]).mean(), torch.rand(6)], False),
    ],
)
def test_a_constant_that_the_model_returns(also, keeps):
    class Two(Toy):
        def forward(self, x):
            y = self.norm(self.a(x))
            return self.b(y), also(y)

    x = torch.randn(2, 3, 6, 6)
    if keeps:
        with pytest.raises(ValueError, match=r"its calls depend on the number of channels: \('the output'"):
            reprune.make_plan(Two(None), x, keep={"a": 5})
    else:
        assert reprune.make_plan(Two(None), x, keep={"a": 5}).keep["a"].size == 5
