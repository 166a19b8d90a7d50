"""Counts beyond what small integers hold are right, or refused before anything starts."""

import numpy as np
import pytest

import reprune
from reprune.clustering import arrays


@pytest.mark.parametrize("O", [65_535, 65_536, 65_537, 131_072, 196_610])
def test_a_cluster_of_very_many_filters_is_covered_once(O):
    _, gains = reprune.max_coverage(np.zeros((O, 3), np.int32), 4)
    assert gains.tolist() == [3, 0, 0, 0]


@pytest.mark.parametrize("O", [65_536, 65_537, 131_073])
def test_one_filter_beside_a_cluster_of_very_many(O):
    labels = np.zeros((O, 2), np.int64)
    labels[O // 2] = 1
    order, gains = reprune.max_coverage(labels, 3, seed=5)
    assert gains.tolist() == [2, 2, 0]
    assert O // 2 in order[:2]


@pytest.mark.parametrize("O, d", [(65_536, 3), (65_537, 2), (66_000, 1)])
def test_a_layer_of_very_many_equal_filters(O, d):
    weight = np.zeros((O, 2, d), np.float32)
    weight[-1] = 1
    sel = reprune.select_filters(weight, 3)
    assert sel.clusters.tolist() == [2, 2]
    assert sel.gains.tolist() == [2, 2, 0]
    assert sel.coverage == 1


def wide(*shape):
    """An array of this shape in the memory of one number."""
    return np.broadcast_to(np.float32(1), shape)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: reprune.linkage(wide(2**30 + 1, 1)), "points: expected at most 1,073,741,824 points"),
        (
            lambda: reprune.linkage(wide(2**24 + 1, 2)),
            "points: expected at most 16,777,216 points of more than",
        ),
        (
            lambda: reprune.linkage([wide(3, 2), wide(2**24 + 1, 2)]),
            r"points\[1\]: expected at most 16,777,216",
        ),
        (lambda: reprune.linkage(wide(2, 2**30 + 1)), "points: expected at most 1,073,741,824 .*coordinates"),
        (
            lambda: reprune.select_filters(wide(2**30 + 1, 1), 2),
            "weight: expected at most 1,073,741,824 filters",
        ),
        (
            lambda: reprune.select_filters(wide(2**24 + 1, 1, 3, 3), 2),
            "weight: expected at most 16,777,216 filters",
        ),
        (
            lambda: reprune.max_coverage(wide(2, 2**30 + 1).view(), 1),
            "labels: expected at most 1,073,741,824",
        ),
        (lambda: reprune.cut(wide(2**30, 4), 1.0), "Z: expected at most 1,073,741,823 merges"),
    ],
)
def test_sizes_beyond_the_limit_are_refused(call, message):
    assert arrays.MOST == 2**30  # without a limit the call would begin
    with pytest.raises(ValueError, match=message):
        call()
