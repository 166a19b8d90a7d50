"""What hypothesis draws points from."""

from hypothesis import strategies as st

from tests.helpers import oracles

SEEDS = st.integers(0, 2**32 - 1)
UNTIED = ("normal", "heavy", "duplicates")
TIED = ("lattice", "zeros")


def points(kinds, n, d):
    """Two points to `n`, of one number to `d`, of these kinds of :func:`oracles.draw_points`."""
    sizes = st.integers(2, n), st.integers(1, d)
    return st.builds(oracles.draw_points, st.sampled_from(kinds), *sizes, SEEDS)
