"""Another criterion in the place of REPrune's: `select` of make_plan, prune and Pruner."""

import numpy as np
import pytest
import torch
from torch import nn

import reprune


def by_norm(problem):
    """The filters with the largest L2 norm."""
    squares = sum((table.astype(float) ** 2).sum(axis=(0, 2)) for table in problem.tables)
    return np.argsort(-squares, kind="stable")[: problem.keep]


def model_and_input():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 4 * 4, 5),
    )  # fmt: skip
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model, torch.randn(2, 3, 8, 8)


def largest(conv, count):
    norms = conv.weight.detach().double().flatten(1).norm(dim=1)
    return sorted(norms.argsort(descending=True)[:count].tolist())


def test_a_plan_keeps_the_channels_of_the_criterion():
    model, x = model_and_input()
    plan = reprune.make_plan(model, x, keep={"0": 5, "3": 4}, select=by_norm)
    assert plan.keep["0"].tolist() == largest(model[0], 5)
    assert plan.keep["3"].tolist() == largest(model[3], 4)
    assert plan.coverage == {}  # nothing was clustered
    assert plan.settings["select"] == "by_norm"
    assert reprune.PruningPlan.from_json(plan.to_json()) == plan
    assert "select" not in reprune.make_plan(model, x, keep={"0": 5}).settings


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_a_training_keeps_the_channels_of_the_criterion(mode):
    model, x = model_and_input()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    how = {"rule": "uniform", "sparsity": 0.5, "interval": 1, "until": 1, "mode": mode}
    pruner = reprune.Pruner(model, optimizer, x, select=by_norm, **how)
    expected = {"0": largest(model[0], 6), "3": largest(model[3], 4)}
    pruner.step()
    plan = pruner.finalize()
    assert {name: kept.tolist() for name, kept in plan.keep.items()} == expected
    assert model[0].out_channels == 6
    assert plan.settings["select"] == "by_norm"


@pytest.mark.parametrize(
    "wrong",
    [[0, 1], [0, 1, 2, 3, 3], [0, 1, 2, 3, 12], [-1, 1, 2, 3, 4], [0.5, 1, 2, 3, 4], [True] * 5],
    ids=["few", "twice", "above", "below", "fractions", "booleans"],
)
def test_what_it_returns_is_checked(wrong):
    model, x = model_and_input()
    with pytest.raises(ValueError, match=r"select: expected 5 different channels of 0..11 for layer 0; got"):
        reprune.make_plan(model, x, keep={"0": 5}, select=lambda problem: wrong)


def test_a_criterion_must_be_a_function():
    model, x = model_and_input()
    with pytest.raises(TypeError, match="select: expected a function of a layer's problem or None; got 'l1'"):
        reprune.make_plan(model, x, keep={"0": 5}, select="l1")
