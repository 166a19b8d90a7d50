"""What an event decides: when, how many, which; and its record."""

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from reprune.pruner import regrowth
from reprune.pruner.regrowth import blocks, draw, residual_norms, span
from reprune.pruner.schedule import Schedule
from tests.helpers.loops import X, one_step, start
from tests.helpers.networks import small_resnet


def test_schedule():
    schedule = Schedule(interval=3, until=10, regrow=0.4)
    assert [epoch for epoch in range(1, 20) if schedule.fires(epoch)] == [3, 6, 9]
    assert schedule.share(5) == pytest.approx(0.2)  # halfway along the cosine
    assert schedule.share(9) == 0.0
    assert Schedule(2, 4, 0.3).share(2) == pytest.approx(0.15)


@pytest.mark.parametrize("rows", [5, 20])
@pytest.mark.parametrize("block", [1, 24, 2**20])
def test_residuals_are_those_of_least_squares(rows, block, monkeypatch):
    """Whatever part of the filters is worked on at a time."""
    monkeypatch.setattr(regrowth, "BLOCK", block)
    rng = np.random.default_rng(0)
    kept, candidates = rng.normal(size=(rows, 12)), rng.normal(size=(7, 12))
    if rows > 12:
        kept[:, :6] = kept[:, 6:]  # or they would span everything
    kept[3] = 2 * kept[1] - kept[0]  # not of full rank
    candidates[2] = kept[:3].sum(axis=0)
    for scale in (1.0, 1e-20, 1e20):
        norms = residual_norms(candidates, span(kept * scale))
        for w, norm in zip(candidates, norms, strict=True):
            solution = np.linalg.lstsq(kept.T, w, rcond=None)[0]
            assert norm == pytest.approx(np.linalg.norm(w - kept.T @ solution), abs=1e-12)
    assert norms[2] < 1e-12
    np.testing.assert_allclose(
        residual_norms(candidates, span(np.zeros((2, 12)))), np.linalg.norm(candidates, axis=1)
    )


@pytest.mark.parametrize("count, length", [(0, 3), (7, 0), (7, 3), (1, 50)])
def test_blocks_cover_all_once(count, length, monkeypatch):
    monkeypatch.setattr(regrowth, "BLOCK", 10)
    found = [k for block in blocks(count, length) for k in range(count)[block]]
    assert found == list(range(count))


def test_draws_follow_the_softmax():
    norms = np.array([0.0, 1.0, 2.0])
    trials = 4000
    firsts = np.zeros(3)
    pairs = np.zeros(3)  # by which of the three is left out
    for seed in range(trials):
        firsts[draw(norms, 1, seed, 0, "layer")[0]] += 1
        pairs[3 - draw(norms, 2, seed, 1, "layer").sum()] += 1
    p = np.exp(norms) / np.exp(norms).sum()
    np.testing.assert_allclose(firsts / trials, p, atol=4 * 0.5 / trials**0.5)
    left = [
        sum(p[a] * p[b] / (1 - p[a]) for a in range(3) for b in range(3) if {a, b, k} == {0, 1, 2})
        for k in range(3)
    ]
    np.testing.assert_allclose(pairs / trials, left, atol=4 * 0.5 / trials**0.5)
    assert draw(norms, 2, 0, 0, "a").tolist() == draw(norms, 2, 0, 0, "a").tolist()
    many = np.zeros(50)
    assert draw(many, 9, 0, 0, "a").tolist() != draw(many, 9, 0, 1, "a").tolist()


@pytest.mark.parametrize("ties,least", [("random", 1), ("norm", 1), ("random", 4)])
def test_the_first_event_decides_as_make_plan_does(ties, least):
    how = {"sparsity": 0.8, "ties": ties, "seed": 3, "min_keep": least}
    model = small_resnet()
    plan = reprune.make_plan(model, X, **how)
    assert (min(len(kept) for kept in plan.keep.values()) == 4) == (least == 4)
    _, _, pruner = start(model=model, regrow=0, **how)
    pruner.step()
    assert {name: list(kept) for name, kept in pruner.plan.keep.items()} == {
        name: list(kept) for name, kept in plan.keep.items()
    }
    assert pruner.plan.coverage == plan.coverage
    assert pruner.history[0].coverage == pytest.approx(np.mean(list(plan.coverage.values())), abs=0.1)


def test_every_half_of_a_shared_group_keeps_a_channel():
    """One convolution sees the first half of the channels, one the second; none may see nothing."""

    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
            self.b, self.c = nn.Conv2d(4, 5, 3), nn.Conv2d(4, 5, 3)

        def forward(self, x):
            first, second = torch.relu(self.norm(self.a(x))).chunk(2, 1)
            return (self.b(first) + self.c(second)).mean((2, 3))

    torch.manual_seed(0)
    model, optimizer, pruner = start(model=Halves(), rule="uniform", sparsity=0.99)
    for epoch in range(4):
        one_step(model, optimizer, epoch)
        pruner.step()
    pruner.finalize()
    assert model.b.in_channels == model.c.in_channels == 1


def test_as_many_come_back_as_the_schedule_says():
    model, optimizer, pruner = start(until=6, regrow=0.5)
    sizes = {"blocks.0.conv1": 16, "blocks.1.conv1": 20, "blocks.2.conv1": 24}
    for epoch in range(1, 7):
        one_step(model, optimizer, epoch)
        pruner.step()
        event = pruner.history[-1]
        for name, size in sizes.items():
            most = int(pruner.schedule.share(epoch) * size)
            assert event.regrown[name] == min(most, size - event.kept[name])
        before, after = pruner.plan.flops
        assert event.flops_regrown == pytest.approx(after / before)
    none, optimizer, pruner = start(regrow=0)
    for epoch in range(4):
        one_step(none, optimizer, epoch)
        pruner.step()
    assert not any(sum(event.regrown.values()) for event in pruner.history)


def test_history(tmp_path):
    model, optimizer, pruner = start()
    for epoch in range(4):
        one_step(model, optimizer, epoch)
        pruner.step()
    lines = str(pruner.history).splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:3] == ["epoch", "sparsity", "kept"]
    assert [int(line.split()[0]) for line in lines[1:]] == [1, 2, 3, 4]
    for event in pruner.history:
        assert 0 < event.coverage <= 1
        assert 0 < event.flops <= event.flops_regrown <= 1
        assert event.seconds > 0
    figure = pruner.history.plot()
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [4, 4, 4]
    figure.savefig(tmp_path / "history.png")
    assert all(float(tick).is_integer() for tick in figure.axes[0].get_xticks())
