"""Plans of whole models: targets, rules, scopes, errors, JSON."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import reprune
from reprune.layer_problems import require_finite
from tests.helpers.networks import SmallResNet, images, small_resnet

X = images()


def flops_of(model):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(X)
    return counter.get_total_flops()


def internal_gammas(model):
    """|gamma| behind each prunable convolution of scope "internal", written down by hand."""
    norms = {f"blocks.{k}.conv1": model.blocks[k].bn1 for k in range(3)} | {"expand": model.norm}
    return {name: norm.weight.detach().abs().numpy() for name, norm in norms.items()}


def test_sparsity_follows_the_gammas():
    """Step 1 by hand: everything at or below the quantile leaves (Eq. 8-9)."""
    model = small_resnet()
    gammas = internal_gammas(model)
    plan = reprune.make_plan(model, X, sparsity=0.5)
    everything = np.sort(np.concatenate(list(gammas.values())))
    threshold = everything[int(np.ceil(0.5 * everything.size)) - 1]
    for name, gamma in gammas.items():
        assert len(plan.keep[name]) == max(1, int((gamma > threshold).sum()))
    assert np.array_equal(plan.keep["depthwise"], plan.keep["expand"])
    assert set(plan.skipped) == {"stem.0", *(f"blocks.{k}.conv2" for k in range(3))}


def test_selection_is_that_of_the_layer():
    """A group of one convolution keeps what select_filters keeps of its weight."""
    model = small_resnet()
    plan = reprune.make_plan(model, X, sparsity=0.5, seed=3)
    for k in range(3):
        name = f"blocks.{k}.conv1"
        weight = model.get_submodule(name).weight.detach()
        alone = reprune.select_filters(weight, len(plan.keep[name]), seed=3, name=name)
        assert np.array_equal(plan.keep[name], alone.keep.numpy())
        assert plan.coverage[name] == alone.coverage


@pytest.mark.parametrize("what", ["flops", "params"])
@pytest.mark.parametrize("scope", ["internal", "all"])
@pytest.mark.parametrize("rule", ["bn", "uniform"])
def test_budgets_are_met_and_not_undershot(what, scope, rule):
    model = small_resnet()
    plan = reprune.make_plan(model, X, **{what: 0.7}, scope=scope, rule=rule)
    small = copy.deepcopy(model)
    reprune.apply(plan, small)
    flops, params = flops_of(small), sum(p.numel() for p in small.parameters())
    assert plan.flops == (flops_of(model), flops)
    assert plan.params == (sum(p.numel() for p in model.parameters()), params)
    before, after = getattr(plan, what)
    assert 0.6 < after / before <= 0.7
    assert bool(plan.skipped) == (scope == "internal")


def test_resnet50_at_half_its_flops(tmp_path):
    """The budget is met as the flop counter measures it; a file gives the same outputs to the last bit."""
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    model = torchvision.models.resnet50().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.1, 1)
    x = torch.randn(1, 3, 64, 64)
    plan = reprune.make_plan(model, x, flops=0.5)
    reprune.apply(plan, model)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    assert counter.get_total_flops() == plan.flops[1]
    assert 0.49 < plan.flops[1] / plan.flops[0] <= 0.5
    reprune.save(model, tmp_path / "small.safetensors")
    loaded = reprune.load(tmp_path / "small.safetensors", torchvision.models.resnet50()).eval()
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


def test_rounding_and_the_fewest():
    model = small_resnet()
    plan = reprune.make_plan(model, X, sparsity=0.5, round_to=8)
    assert all(len(kept) % 8 == 0 or len(kept) == plan.channels[name] for name, kept in plan.keep.items())
    plan = reprune.make_plan(model, X, sparsity=0.999, min_keep=3)
    assert {len(kept) for kept in plan.keep.values()} == {3}
    plan = reprune.make_plan(model, X, sparsity=0.999)
    assert {len(kept) for kept in plan.keep.values()} == {1}
    reprune.apply(plan, model)
    model(X)


def test_given_counts():
    model = small_resnet()
    plan = reprune.make_plan(model, X, keep={"blocks.1.conv1": 7, "depthwise": 9})
    assert {name: len(kept) for name, kept in plan.keep.items()} == {
        "blocks.1.conv1": 7,
        "expand": 9,
        "depthwise": 9,
    }
    assert plan.skipped["blocks.0.conv1"] == "not named in keep"


def test_both_backends_make_one_plan():
    model = small_resnet()
    for ties in ("random", "norm"):
        plans = [
            reprune.make_plan(model, X, sparsity=0.5, scope="all", ties=ties, backend=backend)
            for backend in ("reference", "cpp")
        ]
        assert plans[0].to_json() == plans[1].to_json()


def test_nothing_changes_the_model():
    model = small_resnet().train()
    before = copy.deepcopy(model.state_dict())
    reprune.make_plan(model, X, sparsity=0.5)
    assert model.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


def test_progress_is_told():
    told = []
    reprune.make_plan(small_resnet(), X, sparsity=0.5, progress=lambda *what: told.append(what))
    assert [stage for stage, done, total in told if done == total] == ["trace", "select", "certify"]
    assert all(0 <= done <= total for _, done, total in told)


def test_json_and_back():
    model = small_resnet()
    plan = reprune.make_plan(model, X, sparsity=0.5)
    again = reprune.PruningPlan.from_json(plan.to_json())
    assert again.to_json() == plan.to_json()
    assert str(again) == str(plan)
    reprune.apply(plan, one := copy.deepcopy(model))
    reprune.apply(again, other := copy.deepcopy(model))
    assert torch.equal(one(X), other(X))


def test_table_has_layers_and_totals():
    text = str(reprune.make_plan(small_resnet(), X, sparsity=0.5))
    assert "blocks.0.conv1" in text
    assert "FLOPs: " in text
    assert "not pruned: stem.0, " in text
    assert "scope='all' prunes them" in text


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "expected the JSON of a pruning plan; got something else"),
        ("[1]", "JSON without a 'format'"),
        ('{"format": 99}', "reads plans of format 1; got format 99"),
        ('{"format": 1}', "damaged pruning plan"),
    ],
)
def test_foreign_json(text, message):
    with pytest.raises(ValueError, match=message):
        reprune.PruningPlan.from_json(text)


def test_damaged_json():
    raw = json.loads(reprune.make_plan(small_resnet(), X, sparsity=0.5).to_json())
    raw["positions"] = raw["positions"][:1]
    with pytest.raises(ValueError, match="damaged pruning plan"):
        reprune.PruningPlan.from_json(json.dumps(raw))


class Flat(nn.Module):
    """No BatchNorm."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x):
        return self.b(torch.relu(self.a(x)))


def broken_by_nan():
    model = small_resnet()
    with torch.no_grad():
        model.blocks[1].conv1.weight[0, 0, 0, 0] = float("nan")
    return model


def infinite():
    model = small_resnet()
    with torch.no_grad():
        model.expand.weight[0, 0, 0, 0] = float("inf")
    return model


def test_finite_weights_whose_squares_are_not():
    scales = {"norm": torch.ones(2)}
    kernels = {
        "a": torch.ones(2, 2, 1),
        "b": torch.full((2, 2, 1), 1e30),
        "c": torch.ones(3, dtype=torch.double),
    }
    assert require_finite(kernels, scales)["norm"].tolist() == [1, 1]
    kernels["c"][1] = float("nan")
    with pytest.raises(ValueError, match="the weight of c has NaN"):
        require_finite(kernels, scales)


@pytest.mark.parametrize(
    "build, arguments, message",
    [
        (broken_by_nan, {"sparsity": 0.5}, r"the weight of blocks\.1\.conv1 has NaN or infinite values"),
        (infinite, {"sparsity": 0.5}, r"the weight of expand has NaN or infinite values"),
        (
            small_resnet,
            {"sparsity": 0.0},
            r"sparsity: expected a number between 0 and 1 \(exclusive\); got 0",
        ),
        (small_resnet, {"sparsity": 1.5}, r"sparsity: expected a number between 0 and 1"),
        (small_resnet, {"flops": 1.0}, r"flops: expected a number between 0 and 1"),
        (small_resnet, {"flops": -1}, r"flops: expected a number between 0 and 1"),
        (small_resnet, {"flops": float("nan")}, r"flops: expected a number between 0 and 1"),
        (small_resnet, {"flops": 0.01}, r"flops: at most 0\.01 .* the smallest network has 0\.\d+"),
        (small_resnet, {"flops": 0.5, "min_keep": 12}, r"cannot be reached; .*min_keep"),
        (
            small_resnet,
            {},
            r"exactly one target of sparsity, flops, .*size_mb and keep; got none",
        ),
        (small_resnet, {"flops": 0.5, "sparsity": 0.5}, r"exactly one target .* got sparsity, flops"),
        (
            small_resnet,
            {"keep": {"blocks.1.conv": 3}},
            r"no layer that may lose channels is named 'blocks\.1\.conv'; did you",
        ),
        (small_resnet, {"keep": {"stem.0": 3}}, r"keep: stem\.0 cannot be pruned: .*addition"),
        (small_resnet, {"keep": {"expand": 25}}, r"keep: expand can keep 1 to 24 channels; got 25"),
        (small_resnet, {"keep": {"expand": 3, "depthwise": 4}}, r"shares its channels with expand"),
        (small_resnet, {"keep": {}}, r"at least one layer"),
        (
            small_resnet,
            {"sparsity": 0.5, "rule": "l1"},
            r"rule: expected one of 'bn', 'uniform', 'error'; got 'l1'",
        ),
        (small_resnet, {"sparsity": 0.5, "scope": "every"}, r"scope: expected one of 'internal', 'all'"),
        (
            small_resnet,
            {"sparsity": 0.5, "round_to": 0},
            r"round_to: expected an integer of at least 1; got 0",
        ),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 2)), {"sparsity": 0.5}, r"found none in it"),
        (Flat, {"sparsity": 0.5}, r"this model has none; use rule='uniform'"),
        (SmallResNet, {"sparsity": 0.5}, r"gammas: expected different values; .*rule='uniform'"),
        (lambda: nn.Conv2d(3, 4, 3), {"sparsity": 0.5}, r"can be pruned \(.*is an output of the model"),
    ],
)
def test_errors_say_what_was_wrong(build, arguments, message):
    model = build()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        reprune.make_plan(model, X, **arguments)
    for name, value in before.items():
        assert torch.equal(value.nan_to_num(), model.state_dict()[name].nan_to_num())


def test_a_target_is_a_number():
    with pytest.raises(TypeError, match=r"flops: expected a number between 0 and 1; got '0.5'"):
        reprune.make_plan(small_resnet(), X, flops="0.5")


def test_uniform_needs_no_batch_norm():
    plan = reprune.make_plan(Flat(), X, sparsity=0.5, rule="uniform")
    assert len(plan.keep["a"]) == 4
