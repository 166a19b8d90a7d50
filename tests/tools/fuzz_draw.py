"""Problems for fuzz.py, drawn by kind: values, shapes, and how they lie in memory."""

import numpy as np

KINDS = ("normal", "heavy", "offset", "huge", "tiny", "subnormal", "mixed", "tied", "duplicates", "constant")
STRICT = ("normal", "heavy", "offset", "huge", "tiny")
"""Without ties, nor values that vanish beside others: scipy's heights are the only right ones."""
SIZES = ((2, 30), (31, 120), (121, 700), (601, 1400))
LAYOUTS = ("plain", "fortran", "reversed", "every second", "points first", "a list")


def values(rng, kind, shape, dtype):
    """Points [..., n, d]; of kinds with equal points, those of one problem are equal."""
    single = dtype == np.float32
    x = rng.normal(size=shape)
    if kind == "heavy":
        x = rng.standard_t(1.5, size=shape)
    if kind == "offset":
        x += 10.0 ** rng.integers(1, 3 if single else 6) * rng.choice([-1, 1], size=shape[-1])
    if kind == "huge":
        x *= 10.0 ** (rng.integers(15, 37) if single else rng.integers(100, 300))
    if kind == "tiny":
        x *= 10.0 ** -(rng.integers(15, 32) if single else rng.integers(100, 290))
    if kind == "subnormal":  # the step between numbers is 2^-149 or 2^-1074
        x = np.ldexp(np.rint(x * 2.0 ** rng.integers(1, 20)), -149 if single else -1074)
    if kind == "mixed":  # sizes of every order, and zeros
        top = 37 if single else 300
        x *= 10.0 ** rng.integers(-top, top, size=(*shape[:-1], 1)) * (rng.random(shape) < 0.9)
    if kind == "tied":  # a grid, often off the binary and decimal ones; two to five values
        x = rng.integers(rng.integers(2, 6), size=shape) * rng.choice(
            [1, 0.1, 1 / 3, 1e-3, np.pi]
        ) + rng.choice([0, 7])
    if kind == "duplicates":
        n = shape[-2]
        which = rng.integers(max(1, n // 3), size=n)
        x = x[..., which, :]
    if kind == "constant":
        x[...] = x[..., :1, :]
        if rng.random() < 0.5:
            x[..., -1, :] += 1
    return x.astype(dtype)


def size(rng, largest):
    """Points of a problem: mostly few, now and then as many as the lists of neighbours take."""
    low, high = SIZES[rng.choice(4, p=(0.985, 0.0135, 0.001, 0.0005))]
    if low > largest or high == SIZES[0][1]:
        return 2 + int((min(largest, 30) - 1) * rng.random() ** 1.5)
    return int(rng.integers(low, min(high, largest) + 1))


def laid_out(batch, layout):
    """The same values [B, n, d] otherwise in memory, or a list of problems."""
    if layout == "fortran":
        return np.asfortranarray(batch)
    if layout == "reversed":
        return np.ascontiguousarray(batch[::-1, ::-1, ::-1])[::-1, ::-1, ::-1]
    if layout == "every second":
        wide = np.full([2 * s for s in batch.shape], np.nan, batch.dtype)
        wide[::2, ::2, ::2] = batch
        return wide[::2, ::2, ::2]
    if layout == "points first":  # as the channels of a weight
        return np.ascontiguousarray(batch.transpose(1, 0, 2)).transpose(1, 0, 2)
    if layout == "a list":
        return [np.asfortranarray(p) if k % 2 else p for k, p in enumerate(batch)]
    return batch
