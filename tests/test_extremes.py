"""Numbers of every size that float64 has: heights are those of exact arithmetic, nothing hangs or crashes."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

import reprune
from tests.helpers import drawn, exact
from tests.helpers.processes import environment

SHAPES = [(9, 3, 1), (8, 2, 3), (7, 4, 2)]
EXACT = ("ward", "single", "complete")

SELECT = """
import sys
import reprune
from tests.helpers import drawn
for kind in sys.argv[1:]:
    same = True
    for seed, (O, I, d) in enumerate([(9, 3, 1), (8, 2, 3), (7, 4, 2), (20, 3, 1)]):
        weight = drawn.draw(kind, (O, I, d), seed)
        for keep, ties in ((1, "norm"), (O // 2, "random"), (O // 2, "norm"), (O - 1, "random")):
            one, other = (
                reprune.select_filters(weight, keep, seed=seed, ties=ties, backend=b)
                for b in ("cpp", "reference")
            )
            same &= one.heights == other.heights and (one.order == other.order).all()
            same &= (one.labels == other.labels).all()
    print(kind, "|", "same" if same else "other", flush=True)
"""


@pytest.fixture(scope="module")
def selections():
    """What became of every kind, in processes of their own: crashes and endless loops are the matter."""
    found, left = {}, list(drawn.EXTREME)
    while left:
        command = [sys.executable, "-c", SELECT, *left]
        try:
            output = subprocess.run(
                command, env=environment(), stdout=subprocess.PIPE, timeout=60, text=True
            ).stdout
            end = "ended"
        except subprocess.TimeoutExpired as error:
            output, end = (error.stdout or b"").decode(), "hangs"
        found |= dict(line.split(" | ") for line in output.splitlines())
        left = [kind for kind in left if kind not in found]
        if left:
            found[left.pop(0)] = end
    return found


@pytest.mark.xdist_group("selections of extremes")
@pytest.mark.parametrize("kind", drawn.EXTREME)
def test_selections_of_numbers_of_every_size(selections, kind):
    assert selections[kind] == "same"


def assert_height(height, square):
    """`height` is the root of the fraction `square`, as float64 rounds it."""
    right = exact.root(square)
    if right > Fraction(drawn.MOST):
        assert height == np.inf or height >= drawn.MOST * (1 - 1e-15)
    else:
        assert abs(Fraction(float(height)) - right) <= right / 10**13 + 2 * Fraction(drawn.LEAST)


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("method", EXACT)
@pytest.mark.parametrize("kind", drawn.EXTREME)
def test_heights_of_numbers_of_every_size(kind, method, backend):
    for seed, (O, I, d) in enumerate(SHAPES):
        points = drawn.draw(kind, (O, I, d), 100 + seed)[:, 0]
        Z = reprune.linkage(points, method, backend=backend)
        for row, (_, _, square) in zip(Z, exact.linkage(points, method), strict=True):
            assert_height(row[2], square)


@pytest.mark.parametrize("method", ["ward", "single", "complete", "average"])
@pytest.mark.parametrize("kind", drawn.EXTREME)
def test_dendrograms_are_the_references(kind, method):
    for seed in range(4):
        batch = drawn.draw(kind, (23, 3, (1, 4)[seed % 2]), seed).swapaxes(0, 1)
        one, other = (reprune.linkage(batch, method, backend=b) for b in ("cpp", "reference"))
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("method", EXACT)
def test_a_height_that_float64_does_not_hold_is_infinite(method, backend):
    points = np.array([[-drawn.MOST], [drawn.MOST], [0.75 * drawn.MOST]])
    Z = reprune.linkage(points, method, backend=backend)
    assert Z[:, 2].tolist() == [drawn.MOST - 0.75 * drawn.MOST, np.inf]
    assert reprune.cut(Z, np.inf, backend=backend).tolist() == [0, 0, 0]


def test_cutting_at_the_height_of_a_selection_gives_its_labels():
    """Heights of one channel round to one another where they are near the smallest number."""
    for kind in ("subnormal", "numbers of any size", "huge"):
        weight = drawn.draw(kind, (12, 3, 2), 5)
        sel = reprune.select_filters(weight, 6, backend="cpp")
        trees = reprune.linkage(weight.swapaxes(0, 1), backend="cpp")
        labels = reprune.cut(trees, np.full(3, sel.height))
        np.testing.assert_array_equal(labels.T, sel.labels)
