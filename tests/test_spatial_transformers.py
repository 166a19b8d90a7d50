"""Images that are resampled at the places of a grid, each channel by itself."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reprune
from reprune.graph import traced
from tests.helpers.masking import exact, randomize


class Transformer(nn.Module):
    """Predicts an affine map from its channels and resamples these by it."""

    def __init__(self, dims, grid):
        super().__init__()
        conv = getattr(nn, f"Conv{dims}d")
        self.a, self.b = conv(3, 12, 1), conv(12, 4, 1)
        self.where = nn.Linear(12, dims * (dims + 1))
        self.grid, self.dims = grid, dims

    def forward(self, x):
        x = self.a(x).relu()
        theta = self.where(x.flatten(2).mean(2)).view(-1, self.dims, self.dims + 1)
        return self.b(F.grid_sample(x, self.grid(theta, x), align_corners=False))


def of_its_size(theta, x):
    return F.affine_grid(theta, x.size(), align_corners=False)


def of_one_channel(theta, x):
    return F.affine_grid(theta, (len(x), 1, *x.shape[2:]), align_corners=False)


def of_fewer_places(theta, x):
    return F.affine_grid(theta, (len(x), x.shape[1], *[3] * (x.dim() - 2)), align_corners=False)


def as_many_as_channels(theta, x):
    return F.affine_grid(theta, (len(x), 1, x.shape[1], *x.shape[3:]), align_corners=False)


def transformer(dims, grid):
    x = torch.randn(2, 3, *[6] * dims, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return randomize(Transformer(dims, grid).double()).eval(), x


@pytest.mark.parametrize("with_values", [True, False], ids=["with values", "without values"])
@pytest.mark.parametrize("grid", [of_its_size, of_one_channel, of_fewer_places])
@pytest.mark.parametrize("dims", [2, 3])
def test_channels_that_are_resampled_can_leave(dims, grid, with_values, monkeypatch):
    monkeypatch.setattr(traced, "LARGE_BYTES", 2**30 if with_values else 0)
    (group,) = exact(*transformer(dims, grid), seeds=range(3)).groups
    assert group.atoms.size == 12


def test_a_grid_with_as_many_places_as_channels_keeps_these():
    model, x = transformer(2, as_many_as_channels)
    with pytest.raises(ValueError, match=r"depend on the number of channels: \('affine_grid_generator'"):
        reprune.make_plan(model, x, keep={"a": 5})


def test_a_grid_of_channels_keeps_these():
    """Where the channels are themselves the places, none can leave."""

    class Flow(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.flow, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 2, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.b(F.grid_sample(self.a(x), self.flow(x).permute(0, 2, 3, 1), align_corners=False))

    plan = reprune.make_plan(Flow(), torch.randn(2, 3, 6, 6), sparsity=0.5, rule="uniform")
    assert np.size(plan.keep["a"]) == 4
    assert plan.skipped["flow"] == "is a place of aten.grid_sampler_2d.default"
