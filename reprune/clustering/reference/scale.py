"""Centre points and scale them to a common magnitude, exactly, before distances are computed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

TOP = 900
"""Exponent of the largest number: sums and products with sizes stay finite, and the smallest numbers stay."""


def scaled(points: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], int]:
    """Return points [n, d] minus an offset, times a power of two, and the exponent that undoes it.

    Both are exact, so no distance changes, and a cluster's sum keeps the digits that distinguish it from
    others. A coordinate whose values all lie within a factor of two is centred on the middle of them. Digits
    below 2^-950 are lost if there are numbers above 2^900.
    """
    exponent = int(np.frexp(np.abs(points).max())[1]) - TOP
    points = np.ldexp(points, -exponent)
    low, high = points.min(axis=0), points.max(axis=0)
    near = ((low > 0) & (high <= 2 * low)) | ((high < 0) & (low >= 2 * high))
    return points - np.where(near, low + (high - low) / 2, 0), exponent
