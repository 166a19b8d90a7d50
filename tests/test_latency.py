"""`latency=` on a busy machine: it ends, and says what it measured and whether that is to be trusted."""

from unittest import mock

import pytest
import torch
from torch import nn

import reprune
from reprune.graph.tracer import Tracer
from reprune.targets import clock, latency
from tests.helpers.networks import images
from tests.helpers.told_time import BUSY, CALM, Clock


@pytest.fixture
def told(monkeypatch):
    """The clock by which networks are timed."""
    fake = Clock()
    for module in (clock, latency):
        monkeypatch.setattr(module, "time", fake, raising=False)
    return fake


class Network(nn.Module):
    """Takes as many seconds as it is said to, for each of which it has a share of the parameters."""

    seconds = None

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.Conv2d(64, 2, 1))
        self.whole = sum(p.numel() for p in self.parameters())

    def forward(self, x):
        share = sum(p.numel() for p in self.parameters()) / self.whole
        if torch.is_inference_mode_enabled():  # not while it is traced
            Network.seconds(share)
        return self.layers(x)


@pytest.fixture
def network(told, monkeypatch):
    """Builds one by the function that says what a forward pass of a share of it takes."""

    def build(seconds):
        monkeypatch.setattr(Network, "seconds", seconds)
        torch.manual_seed(0)
        return Network()

    return build


def plan(model, target=0.6, traced=None):
    return reprune.make_plan(
        model, images() if traced is None else traced, latency=target, rule="uniform", scope="all"
    )


def test_on_a_calm_machine_the_target_is_met_and_nothing_is_doubted(told, network):
    found = plan(network(lambda share: told.pass_by(0.1 * share, CALM)))
    assert found.params[1] / found.params[0] == pytest.approx(0.6, rel=0.1)
    assert "not to be trusted" not in str(found)
    assert told.now < 60


def test_all_networks_are_timed_on_one_trace(told, network):
    model = network(lambda share: told.pass_by(0.1 * share, CALM))
    with mock.patch.object(Tracer, "__init__", autospec=True, side_effect=Tracer.__init__) as made:
        plan(model)
        assert made.call_count == 3  # a certificate before networks run, and one of the plan
        traced = reprune.trace(model, images())
        plan(model, traced=traced)
        assert made.call_count == 3 + 1 + 2


@pytest.mark.parametrize("seconds", [0.1, 2.0])
def test_on_a_busy_machine_the_search_ends_and_says_that_times_scatter(told, network, seconds):
    found = plan(network(lambda share: told.pass_by(seconds * share, BUSY)))
    assert told.now < latency.SECONDS + 2 * clock.PATIENCE
    assert "not to be trusted" in found.notes[-1]
    assert "not to be trusted" in str(found)


def test_a_network_that_takes_another_time_when_it_is_timed_again(told, network, monkeypatch):
    """What held both networks up while the search went on is gone at its end."""
    held_up, best = [0.3], latency._best
    monkeypatch.setattr(latency, "_best", lambda *found: held_up.clear() or best(*found))
    found = plan(network(lambda share: told.pass_by(share + sum(held_up))))
    share = found.params[1] / found.params[0]
    assert f"it takes {share:.3f} " in found.notes[-1]
    assert "not 0.6; timed before, 0.59" in found.notes[-1]
    assert "so timings here are not to be trusted" in found.notes[-1]


def test_networks_that_take_too_long_are_refused(told, network):
    expected = r"latency: expected example_inputs that take less time; 5 runs do not fit in 60 s"
    with pytest.raises(TimeoutError, match=expected):
        plan(network(lambda share: told.pass_by(40.0 * share)))
    assert told.now < 3 * clock.PATIENCE


def test_a_search_that_comes_too_late_says_how_far_it_came(told, network, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 20.0)
    with pytest.raises(TimeoutError, match=r"at most 0\.3 of .* in 20 s; the fastest of [12] takes 0\.\d"):
        plan(network(lambda share: told.pass_by(3.0 * (0.25 + 0.75 * share))), target=0.3)


def test_what_was_found_in_time_is_taken(told, network, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 20.0)
    found = plan(network(lambda share: told.pass_by(4.0 * share**3)), target=0.55)
    assert "; no other was timed after 20 s" in found.notes[-1]
