"""Draw the channels to regrow: those least spanned by the kept ones are likeliest (CHEX, Hou et al. 2022)."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from ..aliases import Ints

Floats = npt.NDArray[np.float64]


def residual_norms(kept: Floats, candidates: Floats) -> Floats:
    """Return the norms of the candidates' residuals after projection on the kept filters' span.

    Args:
        kept: [K, D] flattened filters that are kept.
        candidates: [C, D] flattened filters that are not.

    Returns:
        [C] `|| w - P w ||`, P the orthogonal projection on the span of the rows of `kept`.
    """
    scale = float(np.abs(kept).max(initial=0.0))
    if scale == 0.0:
        return _norms(candidates)
    filters = kept / scale
    more_rows = filters.shape[0] > filters.shape[1]
    # of [K, K] or [D, D], the smaller: much quicker than an SVD of [K, D]
    values, vectors = np.linalg.eigh(filters.T @ filters if more_rows else filters @ filters.T)
    strong = values > values[-1] * max(kept.shape) * np.finfo(np.float64).eps
    basis = vectors[:, strong].T  # [rank, D], orthonormal rows
    if not more_rows:
        basis = (basis / np.sqrt(values[strong])[:, None]) @ filters
    rest = candidates - (candidates @ basis.T) @ basis
    return _norms(rest)


def _norms(rows: Floats) -> Floats:
    return np.asarray(np.sqrt((rows**2).sum(axis=1)), dtype=np.float64)


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
