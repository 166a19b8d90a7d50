"""What the certificate takes for evident without values is what values show."""

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from reprune.graph.computed import computed
from reprune.graph.evident import is_evident
from reprune.graph.labels import LABEL
from reprune.graph.propagation import Propagation
from reprune.graph.rules import rule_of
from reprune.graph.state import Call
from reprune.graph.values import Values

aten = torch.ops.aten
LINES = (16, 8)
"""Labels 0..15 are the channels of the first line, 16..23 those of the second."""


def image(labels, side=4):
    """A tensor of activations whose channels have these labels."""
    return torch.zeros(1, len(labels), side, side), [None, np.asarray(labels, LABEL), None, None], True


def weight(shape, *dims):
    return torch.zeros(shape), [None if d is None else np.asarray(d, LABEL) for d in dims], False


def parts(a, b, wide):
    return aten.cat.default, [image(a), image(b)], lambda x: ([*x], 1)


def pool(a, b, wide):
    return aten.max_pool2d_with_indices.default, [image(a)], lambda x: (x[0], [2, 2], [2, 2])


def mean(a, b, wide):
    return aten.mean.dim, [image(a)], lambda x: (x[0], [2, 3])


def kept_mean(a, b, wide):
    return aten.mean.dim, [image(a)], lambda x: (x[0], [2, 3], True)


def grouped(a, b, wide):
    """A convolution of groups of four channels, which leave as a whole."""
    kernel = weight((len(a), 4, 1, 1), a, None, None, None)
    return aten.convolution.default, [image(a), kernel], lambda x: _convolved(*x, len(a) // 4)


def within(a, b, wide):
    """A convolution of two groups, each of which loses the same channels."""
    kernel = weight((len(a), len(wide), 1, 1), a, wide, None, None)
    return aten.convolution.default, [image(a), kernel], lambda x: _convolved(*x, 2)


def _convolved(x, kernel, groups):
    return x, kernel, None, [1, 1], [0, 0], [1, 1], False, [0, 0], groups


def run(case, stays, known=None, roll=0):
    """What `case` was on the labels that stay; those of its result rolled by `roll`."""
    a, b = (np.arange(16)[stays[:16]], np.arange(16, 24)[stays[16:24]])
    func, given, arguments = case(a, b, np.arange(24, 32)[stays[24:]])
    known = Propagation({}, {})
    tensors = [x for x, _, _ in given]
    for x, dims, is_activation in given:
        known.set(x, dims, is_activation)
    states = [known.state(x) for x in tensors]
    call = Call(func, arguments(tensors), {})
    call.out = func(*call.args)
    rule_of(call)(known, call, True)
    for out in call.outputs():
        dims = [np.roll(d, roll) if isinstance(d, np.ndarray) else d for d in known.state(out).dims]
        known.set(out, dims, True)
    return computed(call, states, known)


def masks(case, rng):
    """Which labels stay, so that the slice is right."""
    stays = np.ones(32, dtype=bool)
    stays[16:24] = rng.permutation(8) < 5
    if case is grouped:
        stays[:16] = np.repeat(rng.permutation(4) < 2, 4)
    elif case is within:
        stays[24:] = rng.permutation(8) < 5
        stays[:16] = np.tile(stays[24:], 2)
    else:
        stays[:16] = rng.permutation(16) < 9
    return stays


@pytest.mark.parametrize(
    "case", [parts, pool, mean, kept_mean, grouped, within], ids=lambda case: case.__name__
)
@pytest.mark.parametrize("seed", range(4))
def test_a_right_slice_is_evident_and_a_wrong_one_is_not(case, seed):
    stays = masks(case, np.random.default_rng(seed))
    everything = np.ones_like(stays)
    full, small = run(case, everything), run(case, stays)
    values = Values(stays, [])
    assert is_evident(full, small, values._staying)
    assert not values._run_differently(full, small)
    wrong = run(case, everything, roll=1), run(case, stays, roll=1)  # a rule that is wrong in both runs
    assert not is_evident(*wrong, values._staying)


def with_labels(call, part, k, dims):
    """The call with other labels along the dimensions of its k-th tensor or result."""
    given = list(getattr(call, part))
    own = list(given[k].state.dims)
    for d, ids in dims.items():
        own[d] = np.asarray(ids, LABEL)
    given[k] = given[k]._replace(state=given[k].state._replace(dims=tuple(own)))
    return call._replace(**{part: given})


GROUPS = {
    "all of a group leaves": ([32, 33, 34, 35, 0, 1, 2, 3], 3, True),
    "an input alone leaves": ([32], 4, False),
    "the inputs of a group leave, and its channels stay": ([32, 33, 34, 35], 3, False),
    "a group leaves, and the call has as many": ([32, 33, 34, 35, 0, 1, 2, 3], 4, False),
    "a column of the kernels leaves, and its inputs stay": ([24], 4, False),
    "one group loses channels": ([0, 1], 4, False),
    "every group loses a channel": ([0, 5, 10, 15], 4, True),
}


@pytest.mark.parametrize("gone, groups, expected", GROUPS.values(), ids=GROUPS)
def test_groups_of_a_convolution(gone, groups, expected):
    full = run(grouped, np.ones(32, dtype=bool))
    full = with_labels(full, "tensors", 0, {1: range(32, 48)})
    full = with_labels(full, "tensors", 1, {1: range(24, 28)})
    stays = np.ones(48, dtype=bool)
    stays[gone] = False
    small = full._replace(args=(*full.args[:-1], groups))
    assert is_evident(full, small, Values(stays, [])._staying) == expected


SIDES = {
    "over what leaves": (mean, "tensors", 0, {2: range(24, 28)}),
    "of what leaves": (pool, "tensors", 0, {2: range(24, 28)}),
    "beside what leaves": (parts, "tensors", 1, {3: range(24, 28)}),
}


@pytest.mark.parametrize("case, part, k, dims", SIDES.values(), ids=SIDES)
def test_what_leaves_along_another_dimension_is_not_evident(case, part, k, dims):
    full = with_labels(run(case, np.ones(32, dtype=bool)), part, k, dims)
    stays = np.ones(32, dtype=bool)
    assert case is pool or is_evident(full, full, Values(stays, [])._staying)
    stays[25] = False
    assert not is_evident(full, full, Values(stays, [])._staying)


class Net(nn.Module):
    """Parts side by side, pools, means and both kinds of grouped convolutions."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3), nn.Conv2d(3, 8, 3)
        self.many, self.few = nn.Conv2d(24, 24, 1, groups=8), nn.Conv2d(24, 24, 1, groups=2)
        self.last, self.head = nn.Conv2d(24, 16, 1), nn.Linear(16, 4)

    def forward(self, x):
        x = torch.cat([self.one(x), self.two(x)], 1)
        x = nn.functional.max_pool2d(self.few(self.many(x)), 2)
        return self.head(nn.functional.adaptive_avg_pool2d(self.last(x), 2).mean((2, 3)))


@pytest.mark.parametrize("sparsity", [0.3, 0.6])
def test_what_is_evident_runs_alike(sparsity, monkeypatch):
    seen = []

    def both(full, small, staying):
        found = is_evident(full, small, staying)
        seen.append((full.name, found))
        values = Values(staying.stays[:-1], [])
        assert not (found and values._run_differently(full, small))
        return found

    monkeypatch.setattr("reprune.graph.values.is_evident", both)
    plan = reprune.make_plan(Net(), torch.randn(2, 3, 16, 16), sparsity=sparsity, rule="uniform")
    assert len(plan.keep) == 5
    assert {name for name, found in seen if found} >= {
        "cat",
        "convolution",
        "max_pool2d_with_indices",
        "mean",
    }
