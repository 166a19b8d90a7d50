"""Compensation where outputs are constant, or where nothing but a constant is lost."""

import numpy as np
import pytest
import torch
from torch import nn

import reprune


def first_half(problem):
    return np.arange(problem.keep)


def largest_difference(model, small, x):
    with torch.no_grad():
        return float((small(x) - model(x)).abs().max())


@pytest.mark.parametrize("ridge", ["auto", 1e-3])
@pytest.mark.parametrize("images", [64, 4])
def test_channels_that_are_constant_are_made_up_for_by_the_bias(images, ridge):
    """As those whose BatchNorm scale is 0, which the rule "bn" removes first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1)).eval()
    with torch.no_grad():
        model[1].weight[4:], model[1].bias[4:] = 0.0, 1.0
    x = torch.randn(images, 3, 4, 4)
    small, plan = reprune.prune(model, x[:2], keep={"0": 4}, select=first_half)
    weight = small[3].weight.clone()
    assert largest_difference(model, small, x) > 0.1
    (layer,) = reprune.compensate(model, small, plan, x, ridge=ridge).layers
    assert largest_difference(model, small, torch.randn(16, 3, 4, 4)) < 1e-5
    assert (layer.reason, layer.ridge) == ("", np.inf)
    assert torch.equal(small[3].weight, weight)


def test_a_constant_in_front_of_a_batch_norm_is_left_to_its_mean():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 4, bias=False), nn.BatchNorm1d(4))
    with torch.no_grad():
        model[1].weight[4:], model[1].bias[4:] = 0.0, 1.0
    x = torch.randn(64, 5)
    how = {"keep": {"0": 4}, "layers": "linear", "select": first_half}
    small, plan = reprune.prune(model.eval(), x[:2], **how)
    report = reprune.compensate(model, small, plan, x)
    assert [layer.reason for layer in report.layers] == ["it computes what the dense network computes"]
    assert report.norms == 1
    assert largest_difference(model, small, torch.randn(16, 5)) < 1e-5


@pytest.mark.parametrize("bias", [False, True])
def test_images_that_are_all_alike(bias):
    """There the outputs vary by nothing, in units of which errors are told."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 10, 3, bias=bias), nn.ReLU())
    model.append(nn.Conv2d(10, 4, 1, bias=bias)).eval()
    x = torch.full((32, 3, 8, 8), 2.0)
    small, plan = reprune.prune(model, x[:2], keep={"0": 6, "2": 5}, select=first_half)
    before = largest_difference(model, small, x)
    assert before > 0.01
    report = reprune.compensate(model, small, plan, x)
    assert largest_difference(model, small, x) < 1e-4 * before
    assert max(map(len, str(report).splitlines())) < 120
