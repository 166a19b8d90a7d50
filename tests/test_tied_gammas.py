"""BatchNorm scales that tie, targets that change nothing, and plans that land far from what was asked."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

import reprune
from tests.helpers.loops import start
from tests.helpers.networks import small_resnet

INPUT = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def ranked(gammas, sparsity, present=None):
    from reprune.clustering.sparsity import Ranking

    return Ranking(gammas, present).counts(sparsity)


def lost(gammas, sparsity, present=None):
    counts = ranked(gammas, sparsity, present)
    return {name: len(values) - counts[name] for name, values in gammas.items()}


@given(seed=st.integers(0, 10**6), layers=st.integers(1, 5), sparsity=st.floats(0.01, 0.99))
def test_without_ties_counts_are_those_of_the_paper(seed, layers, sparsity):
    rng = np.random.default_rng(seed)
    gammas = {str(k): rng.permutation(100)[: rng.integers(2, 30)] + k / 7 for k in range(layers)}
    kept = reprune.keep_counts(gammas, sparsity)
    assert {name: max(1, count) for name, count in ranked(gammas, sparsity).items()} == kept


@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=6),
    count=st.integers(1, 100),
)
@example(seed=180, sizes=[1, 7, 9, 6, 9, 21], count=18)  # a layer loses 1.1 more than the share of all
def test_no_more_channels_are_removed_than_asked(seed, sizes, count):
    """Exactly as many leave; a larger |gamma| only after all that are smaller; of equal ones every layer
    loses one and the same share of them, rounded to whole channels (Webster's method of apportionment)."""
    rng = np.random.default_rng(seed)
    gammas = {str(k): rng.integers(0, 3, size) for k, size in enumerate(sizes)}
    total = sum(sizes)
    if count >= total or len(np.unique(np.concatenate(list(gammas.values())))) == 1:
        return
    gone = lost(gammas, count / total)
    assert sum(gone.values()) == count
    threshold = np.sort(np.concatenate(list(gammas.values())))[count - 1]
    below = {name: int((values < threshold).sum()) for name, values in gammas.items()}
    tied = {name: int((values == threshold).sum()) for name, values in gammas.items()}
    assert all(below[name] <= gone[name] <= below[name] + tied[name] for name in gammas)
    of_tied = {name: Fraction(gone[name] - below[name]) for name in gammas if tied[name]}
    lowest = max((lost - Fraction(1, 2)) / tied[name] for name, lost in of_tied.items())
    highest = min((lost + Fraction(1, 2)) / tied[name] for name, lost in of_tied.items())
    assert lowest <= highest  # what is in between is that share


def test_more_leave_from_every_layer_as_the_sparsity_grows():
    gammas = {"a": np.ones(10), "b": np.ones(3), "c": np.r_[np.zeros(2), np.ones(5)]}
    steps = [lost(gammas, count / 20) for count in range(1, 20)]
    for before, after in pairwise(steps):
        assert all(before[name] <= after[name] for name in gammas)


def test_channels_that_are_gone_leave_first():
    """Alive ones with a scale of 0 do not take their place."""
    gammas = {"a": np.zeros(8), "b": np.r_[np.zeros(4), np.ones(4)]}
    assert lost(gammas, 4 / 16, {"a": 8, "b": 4}) == {"a": 0, "b": 4}
    assert lost(gammas, 8 / 16, {"a": 8, "b": 4}) == {"a": 4, "b": 4}


class Stages(nn.Sequential):
    """Four blocks of 8, 8, 16 and 16 channels; `scales` fills the BatchNorms."""

    def __init__(self, *scales):
        torch.manual_seed(0)
        layers, before = [], 3
        for width, scale in zip((8, 8, 16, 16), scales, strict=True):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            nn.init.constant_(layers[-2].weight, scale) if scale else nn.init.uniform_(layers[-2].weight)
            before = width
        super().__init__(*layers, nn.Conv2d(before, 4, 1))


def counts(plan):
    return [len(kept) for kept in plan.keep.values()]


def test_fresh_scales_behind_trained_ones():
    """Three of four layers are as at the start: they lose the same share, not all they have."""
    plan = reprune.make_plan(Stages(1, 1, 1, 0), INPUT, sparsity=0.5)
    assert counts(plan) == [6, 6, 12, 1]  # 16 of the fourth, 8 of the 32 that tie
    assert plan.notes[0].startswith(
        "32 of 48 BatchNorm scales are the same where the line is drawn (|gamma| = 1)"
    )
    assert "rule='uniform'" in plan.notes[0]
    assert plan.notes[1].startswith("1 of 4 layers keep as few channels as min_keep allows (9)")
    assert all(f"note: {note}" in str(plan) for note in plan.notes)


@pytest.mark.parametrize("target", [{"flops": 0.4}, {"params": 0.4}, {"size_mb": 0.008}])
def test_a_budget_is_met_though_scales_tie(target):
    model = Stages(1, 0, 1, 1)
    plan = reprune.make_plan(model, INPUT, **target)
    ((what, value),) = target.items()
    left = {
        "flops": plan.flops[1] / plan.flops[0],
        "params": plan.params[1] / plan.params[0],
        "size_mb": 4 * (plan.params[1]) / 1e6,
    }[what]
    assert 0.9 * value < left <= value
    assert any("BatchNorm scales are the same" in note for note in plan.notes)


def test_a_small_target_removes_few_channels():
    """A target of a tenth, with the zero-initialised scales of residual branches."""
    model = small_resnet()
    for block in model.blocks:
        for module in block.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, 0.0 if module is block.bn2 else 1.0)
    plan = reprune.make_plan(model, INPUT, sparsity=0.1, scope="all")
    groups = {tuple(kept.tolist()): (len(kept), plan.channels[name]) for name, kept in plan.keep.items()}
    assert 1 - sum(k for k, _ in groups.values()) / sum(n for _, n in groups.values()) < 0.15


def test_no_note_where_scales_differ():
    plan = reprune.make_plan(Stages(0, 0, 0, 0), INPUT, sparsity=0.3)
    assert plan.notes == ()


def test_a_target_that_changes_nothing_says_so():
    model = Stages(0, 0, 0, 0)
    for change in (
        {"sparsity": 0.5, "round_to": 16},
        {"sparsity": 0.5, "min_keep": 16},
        {"sparsity": 1e-9, "min_keep": {"*": 16}, "rule": "uniform"},
        {"keep": {"0": 8, "9": 16}},
    ):
        plan = reprune.make_plan(model, INPUT, **change)
        assert plan.flops[0] == plan.flops[1]
        assert plan.notes[0].startswith("nothing is pruned: ")
        assert "note: nothing is pruned" in str(plan)


def test_a_plan_far_from_its_target_says_so():
    model = Stages(0, 0, 0, 0)
    plan = reprune.make_plan(model, INPUT, sparsity=0.5, min_keep=12)
    assert plan.notes[0].startswith("0.167 of the channels leave, where 0.5 was asked for: ")
    narrow = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 8, 3))
    for target in ({"sparsity": 0.1}, {"flops": 0.9}, {"params": 0.9}, {"size_mb": 0.0008}):
        plan = reprune.make_plan(narrow, INPUT, rule="uniform", **target)
        assert "was asked for" in plan.notes[0]


def test_a_pruner_that_could_prune_nothing():
    for change in ({"min_keep": 1000}, {"round_to": 1000}):
        with pytest.raises(ValueError, match=r"round_to: expected smaller .* nothing is ever pruned"):
            start(**change)
    for change in ({"flops": 0.001}, {"params": 0.001}):
        with pytest.raises(ValueError, match=r"at most 0.001 of the full network cannot be reached"):
            start(sparsity=None, **change)
    with pytest.raises(ValueError, match="min_keep: no layer of the model"):
        start(min_keep={"nowhere": 3})


def test_the_plan_of_a_pruner_says_where_it_landed():
    _, _, pruner = start(sparsity=0.8, min_keep=8, rule="uniform", until=2, regrow=0.9)
    pruner.step()
    assert not any("was asked for" in note for note in pruner.plan.notes)  # channels will leave again
    pruner.step()
    assert any("was asked for" in note for note in pruner.finalize().notes)
