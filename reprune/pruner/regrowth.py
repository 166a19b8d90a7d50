"""Draw the channels to regrow: those least spanned by the kept ones are likeliest (CHEX, Hou et al. 2022)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..aliases import Ints

Floats = npt.NDArray[np.float64]


BLOCK = 2**20
"""Numbers of a matrix that are worked on at a time, so that it is not copied as a whole."""


def span(filters: npt.NDArray[np.floating[Any]]) -> Floats:
    """Return an orthonormal basis [rank, D], in rows, of the span of flattened `filters` [K, D].

    They are worked on in float64, a block at a time where there are more filters than numbers in each.
    """
    count, length = filters.shape
    scale = max(float(filters.max(initial=0.0)), -float(filters.min(initial=0.0)))
    if scale == 0.0:
        return np.zeros((0, length))
    more_rows = count > length
    # the products of the columns or of the rows, whichever are fewer: much quicker than an SVD of [K, D]
    products = np.zeros((min(count, length),) * 2)
    for block in blocks(count if more_rows else length, length if more_rows else count):
        part = np.divide(filters[block] if more_rows else filters[:, block], scale, dtype=np.float64)
        products += part.T @ part if more_rows else part @ part.T
    values, vectors = np.linalg.eigh(products)
    strong = values > values[-1] * max(count, length) * np.finfo(np.float64).eps
    if more_rows:
        return np.ascontiguousarray(vectors[:, strong].T)
    basis: Floats = (vectors[:, strong] / (np.sqrt(values[strong]) * scale)).T @ filters.astype(
        np.float64, copy=False
    )
    return basis


def blocks(count: int, length: int) -> Iterator[slice]:
    """Yield `count` positions of `length` numbers each in blocks of about `BLOCK` numbers."""
    step = max(1, BLOCK // max(1, length))
    for begin in range(0, count, step):
        yield slice(begin, begin + step)


def residual_norms(candidates: npt.NDArray[np.floating[Any]], basis: Floats) -> Floats:
    """Return the norms of the candidates' residuals after projection on the kept filters' span.

    Args:
        candidates: [C, D] flattened filters that are not kept, worked on in float64.
        basis: [rank, D] orthonormal rows, the :func:`span` of those that are kept.

    Returns:
        [C] `|| w - P w ||`, P the orthogonal projection on the span.
    """
    candidates = candidates.astype(np.float64, copy=False)
    rest = candidates - (candidates @ basis.T) @ basis
    return np.asarray(np.sqrt((rest**2).sum(axis=1)), dtype=np.float64)


def draw(norms: Floats, count: int, seed: int, event: int, layer: str) -> Ints:
    """Draw `count` candidates without replacement with probabilities softmax(`norms`) [C].

    Drawing without replacement from a softmax is taking the largest of `norms + Gumbel noise` (Gumbel-top-k);
    the noise depends on (seed, event, layer) alone, so every process draws the same. It returns the drawn
    candidates, ascending.
    """
    digest = hashlib.sha256(f"{seed} {event} {layer}".encode()).digest()
    noise = np.random.Generator(np.random.Philox(int.from_bytes(digest[:16], "little"))).gumbel(
        size=norms.size
    )
    return np.sort(np.argsort(-(norms + noise), kind="stable")[:count])
