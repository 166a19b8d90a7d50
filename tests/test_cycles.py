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


@pytest.mark.parametrize("filters, channels", [(2048, 512), (4096, 64)])
def test_picks_that_were_not_fitted_to(filters, channels):
    from benchmarks.gpu import cycles

    measured = 1e-6 * cycles.PICKS[filters, channels]
    assert cycles.pick_seconds(channels) == pytest.approx(measured, rel=0.1)
