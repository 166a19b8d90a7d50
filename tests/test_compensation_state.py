"""Compensation and plans by images leave models, hooks and random numbers as they were."""

import contextlib
import random

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from tests.test_left_as_it_was import CHANGING, InPlace, generators, picture

ENDS = {"success": None, "error": RuntimeError("no"), "interrupt": KeyboardInterrupt()}


def network(kind):
    torch.manual_seed(0)
    model = nn.Sequential(
        InPlace(), nn.Conv2d(3, 8, 3), kind(), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU()
    )
    return model.append(nn.Conv2d(8, 2, 1))


def seen(model):
    return [picture(module.__dict__) for module in (model, *model.modules())]


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", CHANGING)
def test_networks_whose_passes_change_them(kind, end):
    def progress(stage, done, total):
        assert stage == "compensate"
        if done == 1 and ENDS[end] is not None:
            raise ENDS[end]

    model, images = network(kind), torch.randn(16, 3, 8, 8)
    small, plan = reprune.prune(model, images[:2], keep={"5": 4}, rule="uniform")
    values = {name: value.clone() for name, value in small.state_dict().items()}
    before = seen(model), picture(images), generators()
    small_before = seen(small)
    report = None
    with contextlib.suppress(RuntimeError, KeyboardInterrupt):
        report = reprune.compensate(model, small, plan, images, progress=progress)
    assert (report is not None) == (end == "success")
    assert (seen(model), picture(images), generators()) == before
    changed = {name for name, value in small.state_dict().items() if not torch.equal(value, values[name])}
    if report is None:
        assert seen(small) == small_before
    else:
        assert changed == {"7.weight", "7.bias"}
        assert report.layers[0].after < report.layers[0].before
    assert len(small.state_dict()) == len(values)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("how", [{"rule": "uniform"}, {"rule": "error", "criterion": "covariance"}])
def test_random_numbers_of_what_gives_the_images(how, fails):
    def batches():
        for number in range(4):
            torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
            if fails and number == 3:
                raise OSError("the disk is gone")
            yield torch.randn(8, 3, 8, 8)

    model, x = network(nn.Identity), torch.randn(2, 3, 8, 8)
    dataset = torch.utils.data.TensorDataset(torch.randn(9, 3, 8, 8))
    before = generators()
    for images in (batches(), torch.utils.data.DataLoader(dataset, 4, shuffle=True)):
        with pytest.raises(OSError, match="gone") if fails else contextlib.nullcontext():
            reprune.prune(model, x, flops=0.7, calibrate=batches() if fails else images, **how)
        assert generators() == before
    if how["rule"] == "error":
        with pytest.raises(OSError, match="gone") if fails else contextlib.nullcontext():
            reprune.make_plan(model, x, flops=0.7, calibrate=batches(), **how)
        assert generators() == before


def test_prune_names_its_own_argument():
    model = network(nn.Identity)
    with pytest.raises(ValueError, match=r"^calibrate: the dense network fails .* \[N, 4, 8, 8\]"):
        reprune.prune(
            model, torch.randn(2, 3, 8, 8), flops=0.7, rule="uniform", calibrate=torch.randn(8, 4, 8, 8)
        )
