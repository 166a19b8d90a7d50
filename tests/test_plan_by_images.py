"""Plans by images: `criterion="covariance"` and `rule="error"`, with every target."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from reprune.targets import latency
from tests.helpers.networks import images, small_resnet
from tests.test_targets import timed_by

X = images(32, seed=1)
BOTH = {"criterion": "covariance", "rule": "error"}


class TwoLayers(nn.Module):
    """Filters 8 to 15 of `a` are those of 0 to 7 again; those of `b` are all different."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.c = nn.Conv2d(16, 8, 1)
        with torch.no_grad():
            self.a.weight[8:], self.a.bias[8:] = self.a.weight[:8], self.a.bias[:8]

    def forward(self, x):
        return self.c(torch.tanh(self.b(torch.tanh(self.a(x)))))


def two_layers():
    torch.manual_seed(0)
    return TwoLayers()


def by_images(model, target, **how):
    return reprune.make_plan(model, X[:2], **target, **(BOTH | how), calibrate=X)


def test_of_channels_that_are_the_same_one_is_kept_and_others_before_the_second():
    model = two_layers()
    plan = by_images(model, {"sparsity": 0.25})
    assert [len(kept) for kept in plan.keep.values()] == [8, 16]  # all that cost nothing leave first
    assert sorted(plan.keep["a"] % 8) == list(range(8))
    assert plan.coverage == {}
    only_counts = by_images(model, {"sparsity": 0.25}, criterion="reprune")
    assert [len(kept) for kept in only_counts.keep.values()] == [8, 16]
    clusters = reprune.make_plan(model, X[:2], keep={"a": 8}).keep["a"]
    assert np.array_equal(only_counts.keep["a"], clusters)
    only_choice = by_images(model, {"sparsity": 0.25}, rule="uniform")
    assert [len(kept) for kept in only_choice.keep.values()] == [12, 12]
    assert set(only_choice.keep["a"] % 8) == set(range(8))
    given = by_images(model, {"keep": {"a": 8}})
    assert np.array_equal(given.keep["a"], plan.keep["a"])


@pytest.mark.parametrize("how", [BOTH, {"criterion": "reprune"}, {"rule": "bn"}, {"rule": "uniform"}])
@pytest.mark.parametrize("target", [{"flops": 0.6}, {"params": 0.6}, {"size_mb": 0.04}, {"sparsity": 0.4}])
@pytest.mark.parametrize("scope", ["internal", "all"])
def test_every_target_is_met(how, target, scope):
    model = small_resnet()
    plan = by_images(model, target, scope=scope, min_keep=2, round_to=2, **how)
    small = small_resnet()
    reprune.apply(plan, small)
    size = sum(tensor.nbytes for tensor in small.state_dict().values()) / 1e6
    groups = {tuple(kept): plan.channels[name] for name, kept in plan.keep.items()}  # coupled ones once
    kept = sum(map(len, groups)) / sum(groups.values())
    left = {"flops": plan.flops[1] / plan.flops[0], "params": plan.params[1] / plan.params[0]}
    left |= {"size_mb": size, "sparsity": 1 - kept}
    ((what, value),) = target.items()
    if what == "sparsity":
        assert left[what] == pytest.approx(value, abs=0.06)
    else:
        assert 0.85 * value < left[what] <= value
    assert all(len(kept) % 2 == 0 for kept in plan.keep.values())


def test_time_is_met(monkeypatch):
    monkeypatch.setattr(latency, "compare", timed_by(lambda share: share))
    told = []
    plan = reprune.make_plan(
        small_resnet(inner=64), X[:2], latency=0.6, **BOTH, calibrate=X, progress=lambda *it: told.append(it)
    )
    assert plan.params[1] / plan.params[0] == pytest.approx(0.6, rel=0.05)
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["trace", "calibrate", "measure", "select", "certify"]


def test_what_costs_more_leaves_first():
    """Two equal layers, one of which runs on a map of a quarter of the size."""
    torch.manual_seed(0)

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 4, 3, padding=1)

        def forward(self, x):
            return self.b(torch.relu(self.a(x)))

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.large, self.small = Branches(), Branches()
            self.small.load_state_dict(self.large.state_dict())

        def forward(self, x):
            half = torch.nn.functional.avg_pool2d(x, 2)
            return self.large(half), self.small(x[..., :4, :4])

    x = images(32, size=16)
    model = Both()
    by_flops = reprune.make_plan(model, x[:2], flops=0.7, rule="error", calibrate=x)
    by_size = reprune.make_plan(model, x[:2], params=0.7, rule="error", calibrate=x)
    left = [[len(plan.keep[f"{name}.a"]) for name in ("large", "small")] for plan in (by_flops, by_size)]
    assert left[0][0] < left[0][1] - 2
    assert abs(left[1][0] - left[1][1]) <= 2


def test_plans_say_how_they_were_made_and_others_stay_as_they_were():
    model = small_resnet()
    plan = by_images(model, {"flops": 0.6})
    assert plan.settings["rule"] == "error"
    assert plan.settings["criterion"] == "covariance"
    assert plan.settings["calibrate"] == 32
    assert reprune.PruningPlan.from_json(plan.to_json()) == plan
    usual = reprune.make_plan(model, X[:2], flops=0.6)
    keys = "flops rule scope layers round_to min_keep ignore seed ties"
    assert list(json.loads(usual.to_json())["settings"]) == keys.split()
    same = reprune.make_plan(model, X[:2], flops=0.6, criterion="reprune")
    assert same.to_json() == usual.to_json()


def test_prune_looks_at_the_images_and_compensates_on_them():
    model = small_resnet()
    small, plan = reprune.prune(model, X[:2], flops=0.6, **BOTH, calibrate=X)
    assert plan == by_images(model, {"flops": 0.6})
    other = small_resnet()
    reprune.apply(plan, other)
    reprune.compensate(model, other, plan, X)
    state = other.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in small.state_dict().items())
    _, usual = reprune.prune(model, X[:2], flops=0.6, calibrate=X)  # where it is for compensation alone
    assert usual == reprune.make_plan(model, X[:2], flops=0.6)


def test_batches_and_one_trace_give_the_same_plan():
    model = small_resnet()
    plan = by_images(model, {"flops": 0.6})
    batches = [[part, torch.zeros(8)] for part in X.split(8)]
    traced = reprune.trace(model, X[:2])
    assert reprune.make_plan(model, traced, flops=0.6, **BOTH, calibrate=batches) == plan


class Products(nn.Module):
    """The channels of `a` go to a product that is no layer, those of `b` to a convolution."""

    def __init__(self, both=True):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.c = nn.Conv2d(8, 4, 1)
        self.weight, self.both = nn.Parameter(torch.randn(8, 4)), both

    def forward(self, x):
        hidden = torch.relu(self.a(x)).movedim(1, -1) @ self.weight
        return (hidden, self.c(torch.relu(self.b(x)))) if self.both else hidden


def test_layers_without_a_consumer_are_left_to_reprune_and_named():
    torch.manual_seed(0)
    model = Products()
    plan = by_images(model, {"sparsity": 0.5})
    usual = reprune.make_plan(model, X[:2], sparsity=0.5, rule="uniform")
    assert np.array_equal(plan.keep["a"], usual.keep["a"])
    assert "a" in plan.coverage
    assert "b" not in plan.coverage
    (note,) = plan.notes
    assert note.startswith("no convolution or Linear layer that takes all channels of a was seen")


def test_select_may_choose_among_counts_by_error():
    model = two_layers()
    plan = by_images(model, {"sparsity": 0.25}, criterion="reprune", select=lambda p: np.arange(p.keep))
    assert plan.keep["a"].tolist() == list(range(8))


class Failing(nn.Sequential):
    def forward(self, x):
        if x.shape[0] > 2:
            raise RuntimeError("too many\nimages")
        return super().forward(x)


class Dividing(nn.Sequential):
    def forward(self, x):
        return self[1](self[0](x) / x[:, :1].abs().clamp_min(0))


CONV = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
WRONG: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "no images for the rule": (two_layers, {"rule": "error"}, r"calibrate: rule='error' needs images, some"),
    "no images for the criterion": (
        two_layers,
        {"criterion": "covariance", "rule": "uniform"},
        r"calibrate: criterion='covariance' needs images",
    ),
    "images without a use": (
        two_layers,
        {"rule": "uniform", "calibrate": X},
        r"calibrate: expected no images, as neither rule='error' nor criterion",
    ),
    "another criterion": (two_layers, {"criterion": "l1"}, r"criterion: expected one of 'reprune', 'cova"),
    "two criteria": (
        two_layers,
        {**BOTH, "select": lambda problem: None, "calibrate": X},
        r"criterion: expected none beside select",
    ),
    "one image": (two_layers, {**BOTH, "calibrate": X[:1]}, r"calibrate: expected at least two images"),
    "another network": (
        two_layers,
        {**BOTH, "calibrate": torch.zeros(4, 5, 8, 8)},
        r"calibrate: the network fails on the images with RuntimeError: ",
    ),
    "a network that fails": (
        lambda: Failing(*CONV),
        {**BOTH, "calibrate": X},
        r"calibrate: the network fails on the images with RuntimeError: too many; it was given",
    ),
    "infinite values": (
        lambda: Dividing(*CONV),
        {**BOTH, "calibrate": torch.zeros(4, 3, 8, 8)},
        r"calibrate: .* finite; 1 takes NaN or inf",
    ),
    "no consumer": (
        lambda: Products(both=False),
        {**BOTH, "calibrate": X},
        r"calibrate: no convolution or Linear layer that takes .* use rule='uniform' and criterion='reprune'",
    ),
    "images that are all black": (
        lambda: nn.Sequential(*CONV),
        {**BOTH, "calibrate": torch.zeros(4, 3, 8, 8)},
        r"rule: 'error' found no channel that varies .* use rule='uniform'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_say_what_to_do(name):
    build, arguments, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        reprune.make_plan(build(), X[:2], sparsity=0.5, **arguments)


def test_given_counts_need_no_images_for_the_rule():
    model = two_layers()
    plan = reprune.make_plan(model, X[:2], keep={"a": 4}, rule="error")
    assert len(plan.keep["a"]) == 4
    with pytest.raises(ValueError, match="calibrate: expected no images"):
        reprune.make_plan(model, X[:2], keep={"a": 4}, rule="error", calibrate=X)


def test_a_training_has_no_images_for_it():
    model = small_resnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"rule: expected 'bn' or 'uniform', as a Pruner has no images"):
        reprune.Pruner(model, optimizer, X[:2], flops=0.5, rule="error")
