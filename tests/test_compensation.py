"""Compensation is exact where it can be, and every kind of layer is fitted."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reprune
from reprune.compensation.calls import call_of
from reprune.compensation.gram import GramMatrix
from reprune.compensation.moments import Moments
from reprune.compensation.normal import NormalEquations
from reprune.compensation.patches import Layout, as_weight
from reprune.compensation.ridge import ALONE
from reprune.compensation.rows import Rows
from tests.helpers.layer_kinds import NETWORKS, Separable
from tests.helpers.networks import images, small_resnet


def values(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@torch.no_grad()
def error(dense, small, *inputs):
    """Of the outputs on images, as a part of their variance."""
    wanted = dense(*inputs)
    return float((small(*inputs) - wanted).square().mean() / (wanted - wanted.mean(0)).square().mean())


def pruned(model, example, keep, layers="conv", scope="all"):
    return reprune.prune(model.eval(), example, keep=keep, layers=layers, scope=scope)


def test_nothing_pruned_changes_nothing():
    model = small_resnet()
    x = images(16)
    small, plan = reprune.prune(model, x[:2], keep={"blocks.0.conv1": 16})
    before = values(small)
    report = reprune.compensate(model, small, plan, x)
    assert same(values(small), before)
    assert report.layers == ()


def test_a_branch_that_lost_nothing_changes_nothing():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
            self.c, self.d = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)

        def forward(self, x):
            return torch.cat([self.b(self.a(x)), self.d(self.c(x))], 1)

    model, x = Branches(), images(16)
    small, plan = pruned(model, x[:2], {"a": 4})
    before = values(small)
    report = reprune.compensate(model, small, plan, x)
    changed = {name for name, tensor in small.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"b.weight", "b.bias"}
    alike = "it computes what the dense network computes"
    assert [layer.reason for layer in report.layers] == ["", alike, alike]


def duplicated(model, first):
    """Make the second half of the filters of `first` and what goes with them equal to the first half."""
    half = model.get_submodule(first).weight.shape[0] // 2
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.startswith((f"{first}.", f"{first.replace('conv1', 'bn1')}.")) and tensor.dim():
                tensor[half:] = tensor[:half]
    return half


@pytest.mark.parametrize("training", [False, True])
def test_duplicated_filters_pruned_to_one_of_each_are_made_up_for(training):
    model = small_resnet(inner=16, blocks=1)
    half = duplicated(model, "blocks.0.conv1")
    x = images(64, seed=1)
    first = {"select": lambda problem: np.arange(problem.keep)}
    small, plan = reprune.prune(model, x[:2], keep={"blocks.0.conv1": half}, **first)
    assert error(model, small, images(32, seed=2)) > 0.01
    model.train(training)
    small.train(training)
    reprune.compensate(model, small, plan, x)
    assert model.training == small.training == training
    new = images(32, seed=2)
    with torch.no_grad():
        torch.testing.assert_close(small.eval()(new), model.eval()(new), atol=1e-5, rtol=1e-5)


def least_squares(model, small, x, ridge):
    """The second convolution of both, by numpy: weight and bias."""
    with torch.no_grad():
        u = F.unfold(small[1](small[0](x)), 3).transpose(1, 2).flatten(0, 1).numpy()
        y = model(x).flatten(2).transpose(1, 2).flatten(0, 1).numpy()
    weight = small[2].weight.detach().flatten(1).numpy()
    lacking = y - u @ weight.T - small[2].bias.detach().numpy()
    mean, off = u.mean(0), lacking.mean(0)
    width = np.sqrt(ridge * (u - mean).var(0).mean() * len(u))
    rows = np.concatenate([u - mean, width * np.eye(u.shape[1])])
    more = np.concatenate([lacking - off, np.zeros((u.shape[1], lacking.shape[1]))])
    added = np.linalg.lstsq(rows, more, rcond=None)[0]
    bias = small[2].bias.detach().numpy() + off - mean @ added
    return (weight + added.T).reshape(small[2].weight.shape), bias


def test_one_layer_is_numpys_least_squares():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3)).double()
    x = images(40).double()
    small, plan = pruned(model, x[:2], {"0": 4})
    weight, bias = least_squares(model, small, x, ridge=1e-3)
    reprune.compensate(model, small, plan, x, ridge=1e-3)
    np.testing.assert_allclose(small[2].weight.detach().numpy(), weight, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(small[2].bias.detach().numpy(), bias, rtol=1e-8, atol=1e-10)


def test_a_layer_without_bias_or_norm_is_fitted_without_a_constant():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5, bias=False)).double()
    x = torch.randn(50, 6, dtype=torch.float64)
    small, plan = pruned(model, x[:2], {"0": 4}, layers="linear")
    with torch.no_grad():
        u, y = small[1](small[0](x)).numpy(), model(x).numpy()
    lacking = y - u @ small[2].weight.detach().numpy().T
    width = np.sqrt(1e-3 * np.square(u).mean(0).mean() * len(u))
    rows = np.concatenate([u, width * np.eye(4)])
    added = np.linalg.lstsq(rows, np.concatenate([lacking, np.zeros((4, 5))]), rcond=None)[0]
    expected = small[2].weight.detach().numpy() + added.T
    reprune.compensate(model, small, plan, x, ridge=1e-3)
    np.testing.assert_allclose(small[2].weight.detach().numpy(), expected, rtol=1e-8, atol=1e-10)


def test_the_means_of_batch_norms_are_those_of_the_dense_network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()
    )
    nn.init.uniform_(model[3].running_mean)
    x = images(32)
    small, plan = pruned(model, x[:2], {"0": 4})
    variance = small[3].running_var.clone()
    reprune.compensate(model, small, plan, x)
    with torch.no_grad():
        wanted, found = (network[:4](x).mean((0, 2, 3)) for network in (model, small))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(small[3].running_var, variance)


def test_wide_layers_have_all_products():
    u, r = torch.randn(40, 1, 1100, dtype=torch.float64), torch.randn(40, 1, 2, dtype=torch.float64)
    moments = Moments.zero(1, 1100, 2, device=torch.device("cpu"))
    moments.add(u, r, r)
    torch.testing.assert_close(moments.uu[0], u[:, 0].mT @ u[:, 0])
    mean, off = moments.mean(centred=True)
    uu, ur, rr = moments.around(mean, off)
    u, r = u[:, 0] - u[:, 0].mean(0), r[:, 0] - r[:, 0].mean(0)
    torch.testing.assert_close(uu[0], u.mT @ u)
    torch.testing.assert_close(ur[0], u.mT @ r)
    torch.testing.assert_close(rr, r.square().sum())


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("folds", [1, 4])
def test_few_rows_and_sums_of_them_have_one_solution(groups, folds, centred):
    rng = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    parts = [
        [(2 + drawn(7 + k, groups, 40), drawn(7 + k, groups, 3), drawn(7 + k, groups, 3))]
        for k in range(folds)
    ]
    sums = [Moments.zero(groups, 40, 3, device=torch.device("cpu")) for _ in parts]
    for moments, [part] in zip(sums, parts, strict=True):
        moments.add(*part)
    few, many = GramMatrix(parts, centred), NormalEquations(sums, centred)
    assert few.untouched == pytest.approx(many.untouched)
    assert few.wanted == pytest.approx(many.wanted)
    for ridge in (1e-4, 0.1, 10.0, ALONE):
        assert few.error(ridge) == pytest.approx(many.error(ridge), rel=1e-6)
        for found, expected in zip(few.solution(ridge), many.solution(ridge), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_rows_are_added_up_once_they_are_many():
    rows = Rows(2, 1, 5, 1, torch.device("cpu"))
    u, r = torch.randn(2, 4, 1, 5, dtype=torch.float64), torch.randn(2, 4, 1, 1, dtype=torch.float64)
    rows.add(0, u[0], r[0], r[0])
    assert isinstance(rows.problem(True), GramMatrix)
    rows.add(1, u[1], r[1], r[1])
    problem = rows.problem(True)
    assert isinstance(problem, NormalEquations)
    again = GramMatrix([[(u[0], r[0], r[0])], [(u[1], r[1], r[1])]], True)
    assert problem.error(0.1) == pytest.approx(again.error(0.1))
    assert rows.count == 8


def test_a_layer_of_many_inputs_is_fitted_to_few_images():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Flatten(), nn.Linear(16 * 32 * 32, 5))
    x = torch.einsum("nk,kchw->nchw", torch.randn(64, 6), images(6, 32))  # few images tell about the others
    small, plan = pruned(model, x[:2], {"0": 8})
    (layer,) = reprune.compensate(model, small, plan, x).layers
    assert layer.inputs == (16 * 32 * 32, 8 * 32 * 32)
    assert layer.rows == 64
    assert not layer.reason
    assert layer.after < 1e-3 * layer.before


@pytest.mark.parametrize("size", [1, 7, 40])
def test_batches_have_no_influence(size):
    model, x = small_resnet(), images(40)
    small, plan = reprune.prune(model, x[:2], flops=0.5)
    reprune.compensate(model, small, plan, x)
    other, _ = reprune.prune(model, x[:2], flops=0.5)
    dataset = torch.utils.data.TensorDataset(x, torch.zeros(40))
    reprune.compensate(model, other, plan, torch.utils.data.DataLoader(dataset, size))
    assert same(values(other), values(small))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_layer_is_fitted(name):
    make, x, keep = NETWORKS[name]
    torch.manual_seed(0)
    model = make()
    small, plan = pruned(model, x[:2], keep)
    half = len(x) // 2
    before = error(model, small, x[half:])
    report = reprune.compensate(model, small, plan, x[:half])
    assert error(model, small, x[half:]) < 0.9 * before
    assert any(not layer.reason for layer in report.layers)
    assert all(layer.after <= layer.before for layer in report.layers if layer.rows)


@pytest.mark.parametrize("kind", ["conv", "transposed"])
def test_the_rows_times_the_weight_are_the_output(kind):
    torch.manual_seed(0)
    x = torch.randn(3, 4, 9, 8, dtype=torch.float64)
    if kind == "conv":
        func, weight = torch.conv2d, torch.randn(6, 2, 3, 2, dtype=torch.float64)
        settings = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    else:
        func, weight = torch.conv_transpose2d, torch.randn(4, 3, 3, 2, dtype=torch.float64)
        settings = {"stride": (2, 3), "padding": (1, 0), "output_padding": (0, 1), "groups": 2, "dilation": 2}
    call = call_of(func, (x, weight), settings, {id(weight): "weight"})
    layout = Layout(call, 0)
    u = layout.rows(torch.arange(3), torch.arange(layout.positions))
    solution = torch.zeros(2, layout.inputs, 3, dtype=torch.float64)
    solution.normal_()
    out = func(x, as_weight(solution, call), **settings)
    rows = torch.einsum("ngd,gdo->ngo", u, solution).flatten(1)
    torch.testing.assert_close(layout.outputs(out).flatten(0, 1), rows)


def test_a_feed_forward_block_with_layer_norm():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm = nn.LayerNorm(8)
            self.up, self.down = nn.Linear(8, 24), nn.Linear(24, 8)

        def forward(self, x, *, scale):
            x = x + self.attention(x, x, x, need_weights=False)[0]
            return x + scale[:, None, None] * self.down(F.gelu(self.up(self.norm(x))))

    torch.manual_seed(0)
    model = nn.ModuleDict({"block": Block()})["block"].eval()
    x, scale = torch.randn(60, 5, 8), torch.ones(60)
    small, plan = reprune.prune(model, {"x": x[:2], "scale": scale[:2]}, keep={"up": 12}, layers="linear")
    before = (small(x, scale=scale) - model(x, scale=scale)).square().mean()
    batches = ({"x": part, "scale": ones} for part, ones in zip(x.split(16), scale.split(16), strict=True))
    report = reprune.compensate(model, small, plan, batches)
    assert (small(x, scale=scale) - model(x, scale=scale)).square().mean() < 0.3 * before
    assert [layer.name for layer in report.layers if not layer.reason] == ["down"]


def test_what_cannot_be_fitted_is_listed():
    class Other(nn.Module):
        """A Linear layer whose weight is read by a matrix product, and another that is used otherwise too."""

        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 12), nn.Linear(12, 5)

        def forward(self, x):
            x = torch.relu(torch.relu(self.a(x)) @ self.b.weight.t())
            return self.c(x) + (x @ self.c.weight.t()).tanh()

    model, x = Other(), torch.randn(20, 6)
    small, plan = pruned(model, x[:2], {"a": 4}, layers="linear")
    before = values(small)
    report = reprune.compensate(model, small, plan, x)
    assert {layer.name: layer.reason for layer in report.layers} == {"b": "its weight is used by t"}
    assert same(values(small), before)
    assert "its weight is used by t" in str(report)


def test_a_weight_that_another_operation_uses_too_stays():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.a, self.b = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
            self.b.weight = self.words.weight

        def forward(self, x):
            return self.b(torch.relu(self.a(self.words(x))))

    model, x = Tied(), torch.arange(60).view(20, 3) % 9
    small, plan = reprune.prune(model.eval(), x[:2], params=0.7, layers="linear", scope="all", rule="uniform")
    report = reprune.compensate(model, small, plan, x)
    assert {layer.name: layer.reason for layer in report.layers}["words"] == (
        "its weight is used by embedding too"
    )


def test_a_weight_that_is_computed_is_listed():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    nn.utils.parametrize.register_parametrization(model[2], "weight", nn.Tanh())
    x = torch.randn(16, 6)
    small, plan = pruned(model, x[:2], {"0": 4}, layers="linear")
    report = reprune.compensate(model, small, plan, x)
    assert {layer.reason for layer in report.layers} == {"its weight is used by tanh"}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_few_images_are_enough_to_run(count):
    model, x = Separable().eval(), images(count)
    small, plan = pruned(model, x[:2], {"a": 8})
    assert reprune.compensate(model, small, plan, x).images == count


def test_layers_that_lost_nothing_can_be_left():
    model, x = small_resnet(), images(64)
    small, plan = reprune.prune(model, x[:2], keep={"blocks.0.conv1": 6})
    report = reprune.compensate(model, small, plan, x, layers="pruned")
    assert [layer.name for layer in report.layers] == ["blocks.0.conv2"]
    assert report.norms == 6


@pytest.mark.parametrize("bias", [False, True])
def test_a_layer_stays_where_no_weight_does_better_on_other_images(bias):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 20, bias=False), nn.Linear(20, 4, bias=bias))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(20))
    kept = torch.randn(32, 10)
    sign = torch.tensor([1.0, 1.0, -1.0, -1.0]).repeat(8)[:, None]  # the folds contradict each other
    x = torch.cat([kept, sign * kept + 2 * bias], 1)  # with a bias, their mean can be made up for
    first = {"select": lambda problem: np.arange(problem.keep)}
    small, plan = reprune.prune(model, x[:2], keep={"0": 10}, layers="linear", **first)
    before = values(small)
    report = reprune.compensate(model, small, plan, x)
    assert [layer.reason for layer in report.layers] == ["no weight did better on images left out"]
    assert torch.equal(small[1].weight, before["1.weight"])
    assert not bias or not torch.equal(small[1].bias, before["1.bias"])
    assert [layer.ridge for layer in report.layers] == [np.inf if bias else None]


def test_calibrate_is_both_at_once():
    model, x = small_resnet(), images(40)
    small, plan = reprune.prune(model, x[:2], flops=0.5)
    reprune.compensate(model, small, plan, x)
    at_once, same_plan = reprune.prune(model, x[:2], flops=0.5, calibrate=x)
    assert same_plan == plan
    assert same(values(at_once), values(small))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_what_the_cpu_gives():
    model, x = small_resnet(), images(64)
    small, plan = reprune.prune(model, x[:2], keep={"blocks.0.conv1": 6, "blocks.1.conv1": 8})
    other = small_resnet().cuda()
    reprune.apply(plan, other)
    reprune.compensate(model, small, plan, x)
    with torch.cuda.stream(torch.cuda.Stream()):
        reprune.compensate(model.cuda(), other, plan, x)
    torch.cuda.synchronize()
    with torch.no_grad():
        torch.testing.assert_close(other(x.cuda()).cpu(), small(x), atol=1e-2, rtol=1e-2)
