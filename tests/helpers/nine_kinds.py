"""Nine kinds of points on which the backends have to agree to the last bit."""

import numpy as np

from tests.helpers import drawn


def duplicates(rng, shape):
    n = shape[1]
    return rng.normal(size=shape)[:, rng.integers(max(1, n // 3), size=n)]


def clusters(rng, shape):
    """Tight ones, far apart: float32 tells little of what is near."""
    n = shape[1]
    return rng.normal(size=(shape[0], 4, shape[2]))[:, rng.integers(4, size=n)] + 1e-5 * rng.normal(
        size=shape
    )


KINDS = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "lattice": lambda rng, shape: rng.integers(-3, 4, shape).astype(float),
    "duplicates": duplicates,
    "zeros": lambda rng, shape: rng.normal(size=shape) * (rng.random(shape) < 0.1),
    "constant": lambda rng, shape: np.full(shape, rng.normal()),
    "offset": lambda rng, shape: 5 + 0.01 * rng.normal(size=shape),
    "mixed scales": lambda rng, shape: rng.normal(size=shape) * 10.0 ** rng.integers(-6, 3, (*shape[:2], 1)),
    "clusters": clusters,
    "bfloat16": lambda rng, shape: drawn.bfloat16(rng.normal(size=shape)).astype(float),
}


def draw(kind, shape, seed):
    """Points [B, n, d] of a kind above."""
    return KINDS[kind](np.random.default_rng(seed), shape)
