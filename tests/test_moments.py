"""What consumers take, added up in sums, and how much of it is zeros around their inputs."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reprune.compensation.calls import Call
from reprune.reconstruction.moments import Moments, drawn, share_inside
from tests.helpers.networks import images


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


@pytest.mark.parametrize("how", [{}, {"padding": 2}, {"padding": "same"}, {"stride": 2, "padding": (1, 0)}])
@pytest.mark.parametrize("dilation", [1, 2])
def test_the_share_of_what_kernels_take_inside(how, dilation):
    layer, x = nn.Conv2d(3, 4, 3, dilation=dilation, **how), images(2)
    arguments = {"input": x, "weight": layer.weight, "dilation": dilation, **how}
    padding = dilation if how.get("padding") == "same" else how.get("padding", 0)
    taken = F.unfold(torch.ones(1, 1, 8, 8), 3, dilation, padding, how.get("stride", 1))
    assert share_inside(Call(torch.conv2d, arguments, {"weight": "w"})) == pytest.approx(float(taken.mean()))
    assert share_inside(Call(F.linear, {"input": x, "weight": layer.weight}, {"weight": "w"})) == 1


def test_drawn_positions_differ_between_images_and_cover_all():
    x = torch.arange(3 * 6).view(3, 6, 1)  # value: 6 * image + position
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    (rows,) = drawn(x, 2, 0, order)
    assert rows[:, 0].tolist() == [3, 1, 6 + 5, 6 + 0, 12 + 2, 12 + 4]
    (later,) = drawn(x[1:], 2, 1, order)
    assert later.tolist() == rows[2:].tolist()
    (every,) = drawn(x, 6, 0, order)
    assert every[:, 0].tolist() == list(range(18))
