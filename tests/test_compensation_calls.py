"""Compensation of layers that are called in unusual ways."""

import pytest
import torch
from torch import nn

import reprune


class ImageByImage(nn.Module):
    """Convolutions on `[C, H, W]`, one image at a time, then a layer that takes all."""

    def __init__(self, kind):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), kind(8, 10, 3)
        self.c, self.d = kind(10, 6, 3, groups=2), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        x = torch.stack([torch.relu(self.b(torch.relu(self.a(image)))) for image in x])
        x = torch.stack([torch.relu(self.c(image)) for image in x])
        return self.d(x)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_convolutions_without_a_batch_are_listed(kind):
    torch.manual_seed(0)
    model, x = ImageByImage(kind).eval(), torch.randn(4, 3, 9, 9)
    small, plan = reprune.prune(model, x[:2], keep={"a": 4, "b": 5, "c": 3})
    report = reprune.compensate(model, small, plan, x)
    alone = "it runs without a batch"
    assert {layer.name: layer.reason for layer in report.layers if layer.name != "d"} == dict.fromkeys(
        "abc", alone
    )
    counts = {"rule": "error", "criterion": "covariance", "calibrate": x}
    assert reprune.make_plan(model, x[:2], flops=0.7, **counts).keep.keys() >= {"a", "b"}
