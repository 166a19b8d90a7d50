"""Channels are ordered by what they explain of each other: by least squares, consumer by consumer."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reprune
from reprune.compensation.calls import Call
from reprune.compensation.images import collected
from reprune.compensation.sequence import observed
from reprune.reconstruction import images as runs
from reprune.reconstruction.greedy import RIDGE, picks
from reprune.reconstruction.images import Reconstruction
from reprune.reconstruction.moments import Moments, drawn
from tests.helpers.networks import Residual, images


def unexplained(rows, weights, kept):
    """How much of the outputs [rows, A] @ [A, M] least squares cannot make of the channels `kept`, by numpy.

    `rows` are centred; the ridge is rows of its own, each of which only one channel has.
    """
    size = rows.shape[1]
    noise = np.sqrt(RIDGE * np.square(rows).sum(0).mean()) * np.eye(size)
    rows = np.concatenate([rows, noise])
    rest = rows - rows[:, kept] @ np.linalg.lstsq(rows[:, kept], rows, rcond=None)[0]
    return float(np.square(rest @ weights).sum())


def by_trying(consumers):
    """Each pick by trying all channels: (order, gains)."""
    size = consumers[0][0].shape[1]
    whole = [unexplained(rows, weights, []) for rows, weights in consumers]

    def error(kept):
        return sum(unexplained(*one, kept) / total for one, total in zip(consumers, whole, strict=True))

    order, gains = [], []
    while len(order) < size:
        errors = {j: error([*order, j]) for j in range(size) if j not in order}
        best = min(errors, key=errors.get)
        gains.append(error(order) - errors[best])
        order.append(best)
    return order, gains


def shrunk(rows, calls=1, taps=1):
    """Rows [.., A] of 24 images in turns, or of several calls, and rows that shrink their covariance."""
    image = np.arange(len(rows)) // (len(rows) // (24 * calls)) % 24

    def covariance(some):
        some = some.reshape(-1, taps, some.shape[1])
        return np.einsum("nta,ntb->ab", some - some.mean(0), some - some.mean(0)) / len(some)

    first, second, whole = (covariance(x) for x in (rows[image % 2 == 0], rows[image % 2 == 1], rows))
    size, mean = len(whole), np.trace(whole) / len(whole)
    share = np.square(first - second).sum() / 4 / np.square(whole - mean * np.eye(size)).sum()
    assert 0.001 < share < 0.9  # or nothing is seen of it
    noise = np.sqrt(share * mean * len(rows) / taps) * np.eye(size)
    return np.concatenate([np.sqrt(1 - share) * rows, noise])


def drawn_consumer(rng, size, outputs):
    """Channels that depend on each other, and weights."""
    rows = rng.standard_normal((50, size)) @ rng.standard_normal((size, size)) + rng.standard_normal(size)
    return rows - rows.mean(0), rng.standard_normal((size, outputs))


def moments(rows, weights):
    return torch.from_numpy(rows.T @ rows / len(rows)), torch.from_numpy(weights @ weights.T)


@pytest.mark.parametrize("count", [1, 3])
def test_each_pick_is_the_best_and_gains_what_the_error_falls_by(count):
    rng = np.random.default_rng(count)
    consumers = [drawn_consumer(rng, 9, outputs) for outputs in (4, 7, 2)[:count]]
    found = picks([moments(*one) for one in consumers])
    order, gains = by_trying(consumers)
    assert found.order.tolist() == order
    np.testing.assert_allclose(found.gains, gains, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.gains.sum(), count)  # nothing is left in the end


def test_channels_that_say_the_same_come_last():
    rng = np.random.default_rng(0)
    rows, weights = drawn_consumer(rng, 5, 4)
    twice = np.concatenate([rows, rows], 1), np.concatenate([weights, weights])
    found = picks([moments(*twice)])
    assert sorted(found.order[:5] % 5) == [0, 1, 2, 3, 4]
    assert found.gains[5:].max() < 1e-3 < found.gains[:5].min()


def test_few_rows_constant_inputs_and_weights_of_zero_order_all_channels_too():
    rng = np.random.default_rng(0)
    rows, weights = drawn_consumer(rng, 40, 3)
    few = picks([moments(rows[:6], weights)])
    assert sorted(few.order) == list(range(40))
    assert np.isfinite(few.gains).all()
    nothing = torch.zeros(4, 4, dtype=torch.float64)
    for C, H in ((nothing, torch.eye(4).double()), (torch.eye(4).double(), nothing)):
        found = picks([(C, H)])
        assert found.order.tolist() == [0, 1, 2, 3]
        assert found.gains.tolist() == [0, 0, 0, 0]
    dead = rows.copy()
    dead[:, 3] = 0
    assert picks([moments(dead, weights)]).order[-1] == 3


class Shared(nn.Module):
    """Two consumers of the channels of `a`, one of which is called twice."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        return self.b(x), self.c(x), self.c(x.flip(0).square())


class Joined(nn.Module):
    """A consumer of two groups of channels, and of the image's."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 5, 1), nn.Conv2d(14, 4, 1)

    def forward(self, x):
        return self.c(torch.relu(torch.cat([self.a(x), x, self.b(x)], 1)))


class OneByOne(nn.Module):
    """Convolutions that are given one image, without a batch."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 3)

    def forward(self, x):
        return torch.stack([self.b(torch.relu(self.a(one))) for one in x])


def flat(x):
    """[n, C, ...] as [rows, C]."""
    return x.detach().flatten(2).transpose(1, 2).flatten(0, 1).double().numpy()


def centred(rows):
    return rows - rows.mean(0)


def weights_of(layer):
    """[I, M] of a convolution."""
    return layer.weight.detach().transpose(0, 1).flatten(1).double().numpy()


def a_shared(model, x):
    y = torch.relu(model.a(x))
    twice = np.concatenate([flat(y), flat(y.flip(0).square())])
    return [
        (shrunk(centred(flat(y))), weights_of(model.b)),
        (shrunk(centred(twice), calls=2), weights_of(model.c)),
    ]


def one_by_one(model, x):
    """A call is one image, and all are in one half: nothing says how certain the covariance is."""
    return [(centred(flat(torch.relu(model.a(x)))), weights_of(model.b))]


def a_joined(model, x):
    return [(shrunk(centred(flat(torch.relu(model.b(x))))), weights_of(model.c)[9:])]


def a_flattened(model, x):
    y = torch.relu(model[0](x)).detach().flatten(2).double().numpy()  # [n, 8, taps]
    rows = (y - y.mean(0)).transpose(0, 2, 1).reshape(-1, 8)
    weights = model[3].weight.detach().double().numpy().reshape(6, 8, -1)  # [O, 8, taps]
    return [(shrunk(rows, taps=36), weights.transpose(1, 0, 2).reshape(8, -1))]


def a_transposed(model, x):
    rows = shrunk(centred(flat(torch.relu(model[0](x)))))
    return [(rows, model[2].weight.detach().flatten(1).double().numpy())]


def a_grouped(model, x):
    """Two groups of 4 to 4 channels: place p of both leaves together."""
    y = flat(torch.relu(model[0](x))).reshape(-1, 2, 4)
    rows = (y - y.mean(0)).reshape(-1, 4)
    weights = model[2].weight.detach().double().numpy().reshape(2, 4, 4, -1)  # [group, O, I, sides]
    last = flat(torch.relu(model[2](torch.relu(model[0](x))))).reshape(-1, 2, 4)
    after = model[4].weight.detach().double().numpy().reshape(3, 2, 4)
    return [
        (shrunk(rows, taps=2), weights.transpose(2, 0, 1, 3).reshape(4, -1)),
        (shrunk((last - last.mean(0)).reshape(-1, 4), taps=2), after.transpose(2, 0, 1).reshape(4, -1)),
    ]


def a_depthwise(model, x):
    y = torch.relu(model[2](torch.relu(model[0](x))))
    return [(shrunk(centred(flat(y))), weights_of(model[4]))]


def a_residual(model, x):
    y = model[0](x)
    first = model[1]
    return [
        (shrunk(centred(flat(y))), weights_of(first.conv1)),
        (shrunk(centred(flat(model[1](y)))), weights_of(model[2])),
    ]


def a_sequence(model, x):
    y = torch.relu(model[0](x)).detach().double().numpy().reshape(-1, 10)
    return [(shrunk(centred(y)), model[2].weight.detach().double().numpy().T)]


def grouped(kind, *more):
    middle = kind(8, 8, 3, groups=2, bias=False)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), middle, nn.ReLU(), nn.Conv2d(8, 3, 1))


CASES = {
    "two consumers": (Shared, "a", a_shared),
    "part of an input": (Joined, "b", a_joined),
    "flattened": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 6)),
        "0",
        a_flattened,
    ),
    "transposed": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 5, 3, stride=2)),
        "0",
        a_transposed,
    ),
    "in groups": (lambda: grouped(nn.Conv2d), "0", a_grouped),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 3, 1)
        ),
        "0",
        a_depthwise,
    ),
    "residual": (
        lambda: nn.Sequential(nn.Conv2d(3, 7, 3), Residual(7, 5), nn.Conv2d(7, 4, 1)),
        "0",
        a_residual,
    ),
    "one by one": (OneByOne, "a", one_by_one),
    "tokens": (
        lambda: nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 4)),
        "0",
        a_sequence,
    ),
}


def reconstruction(model, x, name, **settings):
    graph = reprune.trace(model, x[:2]).graph("all")
    (group,) = [group for group in graph.groups if group.name == name]
    return Reconstruction(graph, collected(x, model), **settings).picks(group)


@pytest.mark.parametrize("name", CASES)
def test_what_consumers_take_is_found(name, monkeypatch):
    monkeypatch.setattr(runs, "sensitivities", lambda *_: "they are not wanted here")
    build, layer, expected = CASES[name]
    torch.manual_seed(0)
    model, x = build().eval(), images(24, seed=1)
    found = reconstruction(model, x, layer)
    with torch.no_grad():
        order, gains = by_trying(expected(model, x))
    assert found.order.tolist() == order
    np.testing.assert_allclose(found.gains, gains, rtol=1e-3, atol=1e-5)


def test_whole_groups_that_leave_take_nothing_from_the_others(monkeypatch):
    monkeypatch.setattr(runs, "sensitivities", lambda *_: "they are not wanted here")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 12, 3, groups=4), nn.ReLU(), nn.Conv2d(12, 3, 1)
    ).eval()
    x = images(24, seed=1)
    found = reconstruction(model, x, "0")
    with torch.no_grad():
        y = flat(model[3](model[2](model[1](model[0](x))))).reshape(-1, 4, 3)
        rows = (y - y.mean(0)).transpose(0, 2, 1).reshape(-1, 4)
        weights = weights_of(model[4]).reshape(4, 3, -1)
    order, gains = by_trying([(shrunk(rows, taps=3), weights.reshape(4, -1))])
    assert found.order.tolist() == order
    np.testing.assert_allclose(found.gains, gains, rtol=1e-3, atol=1e-5)


def test_channels_may_have_fewer_taps_than_others():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((40, 5)) + 2, rng.standard_normal((3, 5))
    arguments = {"input": torch.from_numpy(x), "weight": torch.from_numpy(weight)}
    found = Moments(np.array([[0, 3], [1, -1], [4, 2]]), Call(F.linear, arguments, {"weight": "w"}))
    for half in (0, 1):
        found.add(torch.from_numpy(x[half::2]), half)
    first, second = x[:, [0, 1, 4]], x[:, [3, 0, 2]] * (1, 0, 1)
    expected = sum(np.cov(tap.T, bias=True) for tap in (first, second))
    np.testing.assert_allclose(found.covariance().numpy(), expected, atol=1e-12)
    w, more = weight[:, [0, 1, 4]], weight[:, [3, 0, 2]] * (1, 0, 1)
    np.testing.assert_allclose(found.weights.numpy(), w.T @ w + more.T @ more)


class Several(nn.Module):
    """As networks that squeeze a batch of one: it takes no image alone."""

    def forward(self, x):
        if len(x) == 1:
            raise RuntimeError("one image")
        return x


def test_batches_have_no_influence(monkeypatch):
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 3), Several(), nn.Flatten(), nn.Linear(784, 3)
    model, x = nn.Sequential(*layers), images(11, size=16)
    monkeypatch.setattr(runs, "_ROWS", 600)  # so that positions are drawn
    whole = reconstruction(model, x, "0")
    events = observed(model, ((x[: runs.PROBED],), {})).events
    most = max(event.bytes + event.output for event in events)
    for memory in (1, 3 * most // runs.PROBED + 1):  # two at a time, and three in the end; or three, and two
        monkeypatch.setattr(runs, "MEMORY", memory)
        parts = reconstruction(model, x, "0")
        assert whole.order.tolist() == parts.order.tolist()
        np.testing.assert_allclose(whole.gains, parts.gains, rtol=1e-6, atol=1e-12)


def test_drawn_positions_differ_between_images_and_cover_all():
    x = torch.arange(3 * 6).view(3, 6, 1)  # value: 6 * image + position
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    (rows,) = drawn(x, 2, 0, order)
    assert rows[:, 0].tolist() == [3, 1, 6 + 5, 6 + 0, 12 + 2, 12 + 4]
    (later,) = drawn(x[1:], 2, 1, order)
    assert later.tolist() == rows[2:].tolist()
    (every,) = drawn(x, 6, 0, order)
    assert every[:, 0].tolist() == list(range(18))


def test_the_model_is_left_as_it_was():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)
            self.register_buffer("steps", torch.tensor(0))
            self.calls = 0

        def forward(self, x):
            self.steps += 1
            self.calls += 1
            return self.b(F.dropout(torch.relu(self.norm(self.a(x))), training=True))

    model = Odd().train()
    model.a.eval()
    seen = []
    model.b.register_forward_hook(lambda module, args, out: seen.append(out))
    graph = reprune.trace(model, images()).graph()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    Reconstruction(graph, collected(images(8), model))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert (model.calls, seen, model.training, model.a.training) == (0, [], True, False)


def test_what_a_pass_draws_is_the_same_each_time():
    class Dropping(nn.Sequential):
        def forward(self, x):
            return self[1](F.dropout(self[0](x), training=True))

    torch.manual_seed(0)
    model = Dropping(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1))
    graph, x = reprune.trace(model, images()).graph(), collected(images(8), model)
    first = Reconstruction(graph, x).picks(graph.groups[0])
    torch.rand(5)
    again = Reconstruction(graph, x).picks(graph.groups[0])
    assert first.gains.tolist() == again.gains.tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_what_the_cpu_finds():
    torch.manual_seed(0)
    model, x = Shared().double(), images(24).double()
    here = reconstruction(model, x, "a")
    there = reconstruction(model.cuda(), x.cuda(), "a")
    assert here.order.tolist() == there.order.tolist()
    np.testing.assert_allclose(here.gains, there.gains, rtol=1e-9)
