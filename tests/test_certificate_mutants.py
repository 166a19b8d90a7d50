"""The certificate finds what is wrong in the rules: each is broken once, and no wrong plan gets through."""

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from reprune.graph import certificate, rules_compute, rules_shape, tracer
from reprune.graph.labels import Constraints
from reprune.graph.propagation import Propagation
from reprune.graph.rules import RULES
from reprune.modules.slicing import sliced_copy
from tests.helpers.masking import difference, masked, randomize


class Toy(nn.Module):
    """Two convolutions of 16 channels, something between, and a third one."""

    def __init__(self, between, inner=16):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(3, 16, 3, padding=1)
        self.norm, self.last = nn.GroupNorm(4, 16), nn.Conv2d(inner, 4, 1)
        self.grouped, self.again = nn.Conv2d(16, 16, 1, groups=4), nn.Conv2d(16, 16, 1)
        self.between = between

    def forward(self, x):
        return self.last(self.between(self, x))


def joined(model, x):
    return torch.cat([model.a(x), model.b(x)], 1)


def written(model, x):
    y = model.a(x)
    room = y.new_zeros(len(y), 16, *y.shape[2:])
    room[:, : y.shape[1]] = y
    return room


def wider(model, x):
    y = model.a(x)
    return y * 2 if y.shape[1] == 16 else y * 3


def wrong_offset(known, call, is_activation):
    rules_shape.cat(known, call, is_activation)
    dims = list(known.state(call.out).dims)
    dims[1] = None if dims[1] is None else np.roll(dims[1], 1)
    known.set(call.out, dims, is_activation)


def swapped_halves(known, call, is_activation):
    rules_shape.cat(known, call, is_activation)
    dims = list(known.state(call.out).dims)
    dims[1] = None if dims[1] is None else np.roll(dims[1], dims[1].size // 2)
    known.set(call.out, dims, is_activation)


def missed_consumer(known, call, is_activation):
    """A convolution that does not couple its input channels."""
    edges = len(known.constraints.edges)
    scale = rules_compute.convolution(known, call, is_activation)
    del known.constraints.edges[edges : edges + 1]
    return scale


def tied_weight(known, call, is_activation):
    """A convolution that forgets its coupling where a kernel is used again."""
    again = any(c.kernel is call["weight"] for c in known.convolutions.values())
    return (missed_consumer if again else rules_compute.convolution)(known, call, is_activation)


def wrong_groups(known, labels, groups):
    """Positions at a distance instead of neighbours."""
    rows = labels.reshape(-1, groups)
    for k in range(1, len(rows)):
        known.constraints.unite(rows[0], rows[k], "is one group of channels")
    return rows[0]


def in_order(part, d):
    return np.arange(part.shape[d])


def without(*reasons):
    def pin(self, a, why):
        if not any(reason in why for reason in reasons):
            self.pins.append((a, why))

    return pin


def no_scalars(call, known):
    """Nothing but names is compared."""
    return (call.name,)


MUTANTS = {
    "wrong offset": (Toy(joined, 32), RULES, "cat", wrong_offset),
    "swapped halves": (Toy(joined, 32), RULES, "cat", swapped_halves),
    "reversed channels": (Toy(lambda m, x: m.a(x).flip(1)), rules_shape, "_positions_along", in_order),
    "missed consumer": (Toy(lambda m, x: m.a(x)), RULES, "convolution", missed_consumer),
    "wrong group size of a norm": (
        Toy(lambda m, x: m.norm(m.a(x))),
        rules_compute,
        "_unite_rows",
        wrong_groups,
    ),
    "wrong group size of a convolution": (
        Toy(lambda m, x: m.grouped(m.a(x))),
        rules_compute,
        "_unite_rows",
        wrong_groups,
    ),
    "hard-coded count": (Toy(lambda m, x: m.a(x)[:, :8], 8), Constraints, "pin", without("cut at a fixed")),
    "branch on the width": (Toy(wider), tracer, "signature", no_scalars),
    "aliasing view": (Toy(written), Propagation, "viewed", lambda self, view, base: None),
    "tied weight": (Toy(lambda m, x: m.again(m.again(m.a(x)))), RULES, "convolution", tied_weight),
}


def choices(graph):
    """Masks that keep half of each group at random, in whole groups of atoms."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        kept = graph.everything()
        for group in graph.groups:
            kept[rng.choice(group.atoms, group.atoms.size // 2, replace=False)] = False
        yield graph.traced.filled(kept)


def is_wrong(model, x, graph, kept):
    """Whether the slice fails, or is another network than the masked one."""
    traced = graph.traced
    slices = traced.slices(kept)
    try:
        with torch.no_grad():
            small = sliced_copy(model, slices, traced.widths(kept))(x)
            return difference(small, masked(model, slices)(x)) > 1e-9
    except RuntimeError:
        return True


@pytest.mark.parametrize("name", MUTANTS)
def test_no_wrong_plan_gets_through(name, monkeypatch):
    model, where, what, mutant = MUTANTS[name]
    model = randomize(model.double()).eval()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    (monkeypatch.setitem if isinstance(where, dict) else monkeypatch.setattr)(where, what, mutant)

    graph = reprune.trace(model, x).graph()
    for kept in choices(graph):
        right = graph.certified(kept)
        kept[np.concatenate([g.atoms for g in graph.groups if g not in right.groups] or [[]]).astype(int)] = (
            True
        )
        assert not is_wrong(model, x, graph, kept)

    with monkeypatch.context() as patch:  # and without the checks one would have
        patch.setattr(tracer.Moves, "check", lambda *_: None)
        patch.setattr(tracer.Memory, "content", lambda *_: None)
        graph = reprune.trace(model, x).graph()
        assert any(is_wrong(model, x, graph, kept) for kept in choices(graph))


@pytest.mark.parametrize("name", ["swapped halves", "wrong group size of a norm"])
def test_a_rule_that_is_wrong_in_both_runs_is_found_by_values(name, monkeypatch):
    model, where, what, mutant = MUTANTS[name]
    model = randomize(model.double()).eval()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    (monkeypatch.setitem if isinstance(where, dict) else monkeypatch.setattr)(where, what, mutant)
    graph = reprune.trace(model, x).graph()
    wrong = [kept for kept in choices(graph) if is_wrong(model, x, graph, kept)]
    assert all("otherwise in the slice" in graph.certify(kept).reason for kept in wrong)
    monkeypatch.setattr(certificate, "_other_values", lambda *_: [])
    assert any(graph.certify(kept) is None for kept in wrong)
