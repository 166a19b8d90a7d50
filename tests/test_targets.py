"""Targets beside FLOPs and parameters, bounds on single layers, and what is said when they cannot be met."""

import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import reprune
from reprune.targets import clock, latency
from tests.helpers.networks import images, small_resnet

X = images()


def size_in_mb(model):
    return sum(t.nbytes for t in model.state_dict().values()) / 1e6


@pytest.mark.parametrize("scope", ["internal", "all"])
def test_megabytes_are_those_of_the_tensors(scope):
    model = small_resnet()
    target = 0.6 * size_in_mb(model)
    small, _ = reprune.prune(model, X, size_mb=target, scope=scope)
    assert 0.93 * target < size_in_mb(small) <= target


def test_tied_tensors_half_precision_and_scratch_buffers_count_as_in_a_file(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 64, 1)
            self.b = nn.Conv2d(64, 64, 3, padding=1)
            self.c = self.b
            self.head = nn.Conv2d(64, 2, 1)
            self.register_buffer("scratch", torch.zeros(10**6), persistent=False)

        def forward(self, x):
            return self.head(self.c(torch.relu(self.b(torch.relu(self.a(x))))))

    model = Tied().to(torch.bfloat16)
    numbers = 64 * 3 + 64 + 64 * 64 * 9 + 64 + 2 * 64 + 2
    with pytest.raises(ValueError, match=rf"size_mb: expected less than the {2e-6 * numbers:.4g} MB that"):
        reprune.make_plan(model, X.bfloat16(), size_mb=1.0, rule="uniform")
    small, _ = reprune.prune(model, X.bfloat16(), size_mb=1e-6 * numbers, rule="uniform")
    reprune.save(small, tmp_path / "small.safetensors")
    tensors = load_file(tmp_path / "small.safetensors").values()
    assert 0.9e-6 * numbers < sum(t.nbytes for t in tensors) / 1e6 <= 1e-6 * numbers


def test_budget_spends_rounding_remainder():
    """Layers of one size take coarse steps together; some of them stay larger, as many as fit."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(3 if k == 0 else 16, 16, 3) for k in range(6)), nn.Conv2d(16, 2, 1))
    how = {"rule": "uniform", "round_to": 8}
    x = torch.zeros(1, 3, 16, 16)
    plan = reprune.make_plan(model, x, params=0.6, **how)
    keep = {name: len(channels) for name, channels in plan.keep.items()}
    assert set(keep.values()) == {8, 16}
    assert plan.params[1] <= 0.6 * plan.params[0]
    for name in keep:
        if keep[name] == 8:
            larger = reprune.make_plan(model, x, keep={**keep, name: 16}, rule="uniform")
            assert larger.params[1] > 0.6 * plan.params[0], name


def test_what_is_ignored_stays_whole():
    model = small_resnet()
    plan = reprune.make_plan(model, X, sparsity=0.5, scope="all", ignore=["blocks.1", "*wise"])
    whole = {name for name in plan.channels if name not in plan.keep}
    # blocks.1.conv2 writes to the residual stream, so all that add to it stay; expand feeds depthwise
    stream = {"stem.0", *(f"blocks.{k}.conv2" for k in range(3))}
    assert whole == stream | {"blocks.1.conv1", "expand", "depthwise"}
    assert plan.skipped["blocks.1.conv1"] == "blocks.1.conv1 is in ignore"
    assert plan.skipped["stem.0"] == "blocks.1.conv2 is in ignore"
    assert plan.skipped["expand"] == "depthwise is in ignore"
    assert plan.settings["ignore"] == ["blocks.1", "*wise"]


def test_the_fewest_channels_by_name():
    bounds = {"blocks.*.conv1": 5, "blocks.2": 9, "depthwise": 7}
    plan = reprune.make_plan(small_resnet(), X, sparsity=0.999, min_keep=bounds)
    assert {name: len(kept) for name, kept in plan.keep.items()} == {
        "blocks.0.conv1": 5,
        "blocks.1.conv1": 5,
        "blocks.2.conv1": 9,
        "expand": 7,
        "depthwise": 7,
    }
    assert reprune.PruningPlan.from_json(plan.to_json()).settings["min_keep"] == bounds


def test_channels_that_leave_in_fours_are_rounded_as_channels():
    torch.manual_seed(0)
    grouped = nn.Conv2d(24, 24, 3, groups=4)  # one place of each of the four groups at a time
    model = nn.Sequential(nn.Conv2d(3, 24, 3), nn.ReLU(), grouped, nn.ReLU(), nn.Conv2d(24, 2, 1))
    for round_to, left in ((1, 12), (8, 16), (12, 12), (16, 16), (32, 24)):
        plan = reprune.make_plan(model, X, sparsity=0.5, rule="uniform", round_to=round_to)
        assert {len(kept) for kept in plan.keep.values()} == {left}, round_to


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"ignore": ["blocks.7"]},
            r"ignore: no layer .* is named 'blocks\.7' .*did you mean one of blocks\.",
        ),
        ({"min_keep": {"dephtwise": 3}}, r"min_keep: no layer .* did you mean one of depthwise"),
        (
            {"min_keep": {"depthwise": 0}},
            r"min_keep\['depthwise'\]: expected an integer of at least 1; got 0",
        ),
        ({"min_keep": True}, r"min_keep: expected an integer of at least 1; got True"),
        (
            {"keep": {"expand": 5}, "ignore": ["expand"], "sparsity": None},
            r"expand cannot be pruned: .*ignore",
        ),
        ({"ignore": ["*"]}, r"no layer can be pruned \(.*is in ignore"),
        ({"size_mb": 0.0, "sparsity": None}, r"size_mb: expected a number of megabytes above 0; got 0"),
        (
            {"size_mb": 0.001, "sparsity": None},
            r"at most 0\.001 MB cannot .* network has 0\.0\d+",
        ),
        ({"latency": 1.5, "sparsity": None}, r"latency: expected a number between 0 and 1"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        reprune.make_plan(small_resnet(), X, **{"sparsity": 0.5} | arguments)


def test_a_string_is_refused_where_a_list_is_expected():
    with pytest.raises(TypeError, match=r"ignore: expected a list of names or patterns; got 'expand'"):
        reprune.make_plan(small_resnet(), X, sparsity=0.5, ignore="expand")


def timed_by(seconds):
    """A stand-in for `compare`, with a time that is a function of the network's number of parameters."""
    calls = []

    def compare(small, full, example):
        count, whole = (sum(p.numel() for p in model.parameters()) for model in (small, full))
        calls.append(count)
        return clock.Ratio(ratio := seconds(count / whole), ratio, ratio, 1)

    compare.calls = calls
    return compare


@pytest.mark.parametrize("target", [0.9, 0.75, 0.6])
@pytest.mark.parametrize(
    "seconds", [lambda share: share, lambda share: 0.3 + 0.7 * share, lambda share: share**3, np.sqrt]
)
def test_the_search_lands_whatever_the_time_depends_on(monkeypatch, target, seconds):
    """On times without noise: within 5 % of the target, and in the network that comes out."""
    compare = timed_by(seconds)
    monkeypatch.setattr(latency, "compare", compare)
    plan = reprune.make_plan(small_resnet(inner=64), X, latency=target, scope="all")
    assert seconds(plan.params[1] / plan.params[0]) == pytest.approx(target, rel=0.05)
    assert 1 <= len(compare.calls) <= 8
    assert "of the full network's time" in plan.notes[0]


def test_between_two_steps_the_faster_network_is_taken(monkeypatch):
    """With 24 of 48 channels or all, nothing lies near 0.7: at most the target, and the note says what is
    next."""
    monkeypatch.setattr(latency, "compare", timed_by(lambda share: 0.5 if share < 0.9 else 0.95))
    plan = reprune.make_plan(small_resnet(), X, latency=0.7, round_to=8)
    assert plan.params[1] / plan.params[0] < 0.9
    assert "it takes 0.500" in plan.notes[0]
    assert "the next larger network takes 0.950" in plan.notes[0]


def test_out_of_reach_says_what_is_within(monkeypatch):
    monkeypatch.setattr(latency, "compare", timed_by(lambda share: 0.5 + 0.5 * share))
    with pytest.raises(
        ValueError, match=r"latency: 0\.3 of .* cannot be reached; .* takes 0\.\d+ \(quartiles"
    ):
        reprune.make_plan(small_resnet(), X, latency=0.3)


def test_progress_tells_of_timings(monkeypatch):
    monkeypatch.setattr(latency, "compare", timed_by(lambda share: share))
    told = []
    reprune.make_plan(small_resnet(), X, latency=0.8, progress=lambda *what: told.append(what))
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["trace", "measure", "select", "certify"]


class Sleeper(nn.Module):
    """Takes so many milliseconds of a clock of its own, now and then many more."""

    now = 0.0

    def __init__(self, ms):
        super().__init__()
        self.ms, self.calls = ms, 0
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        assert not self.training
        Sleeper.now += 1e-3 * (self.ms + (30 if self.calls % 3 == 2 else 0))


def test_ratios_of_times_ignore_stalls(monkeypatch):
    """A ratio that stalls do not move, with its spread, and the networks as they were."""
    monkeypatch.setattr(clock, "_clock", lambda model: lambda: Sleeper.now)
    small, full = Sleeper(4.0), Sleeper(8.0).train()
    ratio = clock.compare(small, full, ((X,), {}))
    assert ratio.middle == pytest.approx(0.5)
    assert ratio.low <= ratio.middle <= ratio.high
    assert clock.FEWEST <= ratio.runs <= clock.MOST
    assert full.calls == 0  # a copy ran
    assert small.calls >= ratio.runs
    assert full.training


def test_runs_go_on_until_the_median_is_known():
    calm, wild = [(1.0, 2.0)] * 5, [(1.0 + k % 3, 2.0) for k in range(9)]
    assert clock._enough(calm, 0.0)
    assert not clock._enough(calm[: clock.FEWEST - 1], 2 * clock.SECONDS)
    assert not clock._enough(wild, 0.0)
    assert clock._enough(wild, 2 * clock.SECONDS)


@pytest.mark.parametrize("threads, expected", [(1, time.thread_time), (2, time.perf_counter)])
def test_cpu_time_ignores_other_programs(monkeypatch, threads, expected):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert clock._clock(nn.Linear(1, 1)) is expected


def test_a_real_latency():
    """What comes out is timed again: noise of the machine makes this a wide bound."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 128, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(128, 128, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(128, 8, 1),
    ).eval()
    x = images(2, 32)
    small, _ = reprune.prune(model, x, latency=0.5, round_to=8, rule="uniform")
    again = clock.compare(small, model, ((x,), {}))
    assert 0.35 < again.middle < 0.65
