"""On a busy machine the demo is bounded in time, and no time is shown as if it were to be trusted."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from reprune import demo, timings
from reprune.bench import markdown, report, timing
from reprune.bench.run import _doubts as doubts
from reprune.cli.demo import show_report
from reprune.demo import end_to_end, measure, pace
from tests.helpers.told_time import BUSY, CALM, Clock


@pytest.fixture
def told(monkeypatch):
    """The clock by which everything here is timed."""
    fake = Clock()
    for module in (pace, measure, timing):
        monkeypatch.setattr(module, "time", fake)
    return fake


# the demo


def step(told, seconds):
    return lambda: told.pass_by(seconds[torch.get_num_threads()])


@pytest.mark.parametrize("seconds, used", [({1: 1.2, 4: 8.0}, 1), ({1: 1.2, 4: 0.4}, 4)])
def test_threads_that_wait_for_each_other_are_not_used(told, monkeypatch, seconds, used):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        with pace.fastest(step(told, seconds)) as (found, words):
            assert torch.get_num_threads() == found.threads == used
            assert found.seconds == pytest.approx(seconds[used])
            assert words == (
                ""
                if used == 4
                else "On one thread, which is faster here: a step takes 8000 ms with 4 and 1200 ms with 1."
            )
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert told.now < 30


@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.3, 0.5, 1.0, 2.0])
def test_as_much_is_trained_as_fits(seconds):
    job = pace.Pace(1, seconds).job(pace.FULL, 64)
    takes = [2 * j.epochs * -(-j.images // 64) * seconds for j in pace.FULL]
    fits = [j for j, took in zip(pace.FULL, takes, strict=True) if took <= pace.PLANNED * pace.LIMIT]
    assert job == (fits[0] if fits else pace.FULL[-1])
    assert (job == pace.FULL[0]) == (seconds <= 0.1)


@pytest.mark.parametrize("quick, seconds, images", [(False, 0.1, 4000), (False, 1.2, 1000), (True, 4.0, 500)])
def test_the_demo_says_what_it_left_out(told, monkeypatch, tmp_path, quick, seconds, images):
    given = []

    def trained(out, dense, digits, job, seed, quick, tell):
        given.append(job)
        return demo.Report(None, None, None, None, True, 0.0, {}, notes=("A doubt.",))

    monkeypatch.setattr(end_to_end, "_run", trained)
    monkeypatch.setattr(end_to_end.data, "load", lambda seed: None)
    monkeypatch.setattr(end_to_end, "_step_of", lambda model, digits: lambda: told.pass_by(seconds))
    monkeypatch.setattr(timings.os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    notes = end_to_end.run(tmp_path, quick=quick).notes
    assert given[0].images == images
    smaller = f"Made smaller, because a step takes {1e3 * seconds:.0f} ms here."
    assert notes == (("A doubt.",) if images == 4000 else (smaller, "A doubt."))


def test_a_demo_that_becomes_slow_ends(told):
    said = []
    tell = pace.Deadline(lambda *what: said.append(what))
    tell("train", 3, 9)
    told.pass_by(pace.LIMIT + 1)
    with pytest.raises(TimeoutError, match=r"ends after 300 s, at step 4 of 9 of stage 'train': .* busy"):
        tell("train", 4, 9)
    assert said == [("train", 3, 9)]


def latencies(told, scatter, seconds=0.1, repeats=200):
    """Of two models, and how often the second was timed."""
    done = []

    class Model(nn.Module):
        def forward(self, x):
            told.pass_by(seconds, scatter)

    pair, x = [Model(), Model()], torch.zeros(1)
    found = measure.latencies(pair, x, repeats=repeats, progress=lambda *step: done.append(step))
    return found, len(done)


def test_latencies_that_scatter_are_not_trusted(told):
    calm, _ = latencies(told, CALM)
    busy, _ = latencies(told, BUSY)
    assert [found.trusted for found in calm + busy] == [True, True, False, False]


def test_latencies_take_as_many_runs_as_there_is_time_for(told):
    assert latencies(told, CALM, seconds=0.01)[1] == 200
    assert 90 <= latencies(told, CALM, seconds=0.1)[1] <= 110
    assert latencies(told, CALM, seconds=60.0)[1] == measure.FEWEST


def test_the_table_says_which_latencies_are_not_to_be_trusted(capsys):
    side = demo.Side(0.9, 2, 500, 3.0, 10**6, 10**4, 10**4, {1: 0.01, 64: 0.2})
    shot = demo.OneShot(250, 256, 1.0, 0.2, 0.8)
    show_report(demo.Report(side, side, shot, [], True, 9.0, {}, doubtful=(64,), notes=("So it is.",)))
    said = capsys.readouterr().out
    assert "latency, batch 64, not to be trusted" in said
    assert "latency, batch 1, not" not in said
    assert "So it is.\n" in said


# the benchmark, and all


def rows(told, scatter):
    def turn():
        def call():
            told.pass_by(0.1, scatter)

        return {report.ONE: timing.clocked(call)}

    return report.Case("single", "7x2", 1, 7).rows(timing.in_turns([turn], 2.0), {}, {}, 1)


def test_times_of_the_benchmark_that_scatter_have_a_mark(told):
    write = lambda number: f"{number:.3f}"  # noqa: E731
    for scatter, mark in ((CALM, ""), (BUSY, "?")):
        (row,) = rows(told, scatter)
        assert markdown.cells(row, write, write)[2] == write(row.seconds) + mark
        assert markdown.side_by_side([row], write)[1][0][1] == write(row.seconds) + mark
        assert bool(doubts([row])) == bool(mark)
    assert doubts([row, row])[0].startswith("2 of 2 times are not to be trusted, those with a question ")


@pytest.mark.skipif(not hasattr(os, "getloadavg"), reason="knows no load")
def test_other_programs_are_told_of(monkeypatch):
    monkeypatch.setattr(timings, "os", SimpleNamespace(cpu_count=lambda: 4, getloadavg=lambda: (load, 0, 0)))
    load = 1.9
    assert timings.busy_note() == ""
    load = 8.25
    assert timings.busy_note() == (
        "Timings are not to be trusted: other programs were running (load 8.2 on 4 cores when this began)"
    )
    monkeypatch.setattr(timings, "os", SimpleNamespace())
    assert timings.busy_note() == ""


def test_how_far_a_median_may_be_off():
    """In 95 of 100 draws the median of normal numbers is off by no more."""
    rng = np.random.default_rng(1)
    draws = rng.normal(10.0, 1.0, size=(400, 60))
    within = [abs(np.median(x) / 10.0 - 1) <= timings.median_error(x) for x in draws]
    assert 0.91 < np.mean(within) < 0.99
