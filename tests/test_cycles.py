"""The model that predicts times on a GPU, against the launches that were measured there."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("scipy")


def test_it_is_near_what_it_was_not_fitted_to():
    from benchmarks.gpu import cycles

    rows = cycles.measured()
    held_out = [row for row in rows if row.launch.points in cycles.HELD_OUT]
    fitted = [row for row in rows if row.launch.points not in cycles.HELD_OUT]
    assert len(held_out) > len(fitted) > 2 * len(cycles.NAMES)
    ratios = cycles.errors(held_out, cycles.fit(fitted))
    assert np.exp(np.abs(np.log(ratios)).mean()) < 1.2
    assert ratios.min() > 0.6
    assert ratios.max() < 1.25


def test_problems_side_by_side():
    """As many as fit take as long as one or longer, and ten times as many ten times as long."""
    from benchmarks.gpu import cycles

    coefficients = cycles.fit(cycles.measured())
    one = cycles.Launch(512, 1, 4, 16, 6e5, 9e3, 2.5e5, 1300, 43_000)
    times = [
        cycles.seconds(replace(one, problems=problems), coefficients)
        for problems in (1, 132, 133, 528, 529, 5280)
    ]
    assert times[0] == times[1]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(10 * times[3])


def test_a_pick_that_was_not_fitted_to():
    from benchmarks.gpu import picks

    for pick, us in picks.MEASURED.items():
        others = picks.fit({row: time for row, time in picks.MEASURED.items() if row != pick})
        assert picks.seconds(pick, others) == pytest.approx(1e-6 * us, rel=0.2)


def test_reads_that_follow_each_other():
    from benchmarks.gpu.picks import reads_in_turn

    alone = np.arange(20)[:, None].repeat(3, 1)
    assert reads_in_turn(alone, np.arange(5)) == 1  # where the cluster is
    one = np.zeros((20, 3), int)  # and its members, 20 of them: eight, and three times four
    assert reads_in_turn(one, np.array([7])) == 5
    assert (
        reads_in_turn(one, np.array([7, 8])) == (5 + 2) / 2
    )  # nothing new, as the first read of members tells
    mixed = np.concatenate([alone, one, alone], 1)
    assert reads_in_turn(mixed, np.array([7])) == 5  # the longest of a warp
    for channels, turns in ((512, 1), (2048, 1), (2049, 2)):
        assert reads_in_turn(np.zeros((4, channels), int), np.array([0])) == 2 * turns
