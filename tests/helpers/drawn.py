"""Points that are hard on a clustering, by kind: ties of quantised numbers, and numbers of every size."""

from itertools import product

import numpy as np

MOST = np.finfo(np.float64).max
LEAST = 5e-324  # the smallest number of float64

TIED = {
    "lattice": lambda rng, shape: rng.integers(-3, 4, shape).astype(float),
    "dyadic": lambda rng, shape: np.rint(rng.normal(size=shape) * 8) / 2.0 ** rng.integers(1, 12),
    "ternary": lambda rng, shape: rng.integers(-1, 2, shape) * rng.uniform(0.1, 1),
    "int8": lambda rng, shape: np.rint(rng.normal(size=shape) * 30).clip(-127, 127) * rng.uniform(1e-3, 1e-2),
    "int4, a scale a filter": lambda rng, shape: (
        np.rint(rng.normal(size=shape) * 3).clip(-8, 7) * rng.uniform(1e-3, 1e-2, (shape[0], 1, 1))
    ),
    "thirds": lambda rng, shape: rng.integers(-4, 5, shape) / 3,
    "float16": lambda rng, shape: (rng.normal(size=shape) * 0.05).astype(np.float16),
    "bfloat16": lambda rng, shape: bfloat16(rng.normal(size=shape) * 0.05),
    "signs": lambda rng, shape: rng.choice([-1.0, 1.0], shape) * rng.normal(size=(1, 1, shape[2])),
    "simplex": lambda rng, shape: simplex(shape) * rng.uniform(0.1, 2),
    "offset lattice": lambda rng, shape: rng.integers(-3, 4, shape) + rng.choice([1e3, 1e6, 0.1]),
    "last bits": lambda rng, shape: last_bits(rng, shape),  # which rounding may join at height 0
    "last bits, one far away": lambda rng, shape: (
        last_bits(rng, shape) * np.where(np.arange(shape[0]) == 1, 1e8, 1.0)[:, None, None]
    ),
    "duplicates": lambda rng, shape: (
        rng.integers(-2, 3, shape)[rng.integers(max(1, shape[0] // 3), size=shape[0])] / 7
    ),
}

EXTREME = {
    "subnormal": lambda rng, shape: rng.integers(-40, 40, shape) * LEAST,
    "huge": lambda rng, shape: rng.uniform(-1, 1, shape) * 1e307,
    "up to the largest": lambda rng, shape: rng.uniform(-1, 1, shape) * MOST,
    "filters of any size": lambda rng, shape: rng.normal(size=shape) * sizes(rng, (shape[0], 1, 1)),
    "coordinates of any size": lambda rng, shape: rng.normal(size=shape) * sizes(rng, (1, 1, shape[2])),
    "channels of any size": lambda rng, shape: rng.normal(size=shape) * sizes(rng, (1, shape[1], 1)),
    "numbers of any size": lambda rng, shape: rng.normal(size=shape) * sizes(rng, shape),
    "zeros beside 1e300": lambda rng, shape: (
        rng.choice([0, 1e300, 1e-10, LEAST, -1.0], shape) * rng.uniform(1, 2, shape)
    ),
    "nearly one number": lambda rng, shape: 1.5 + rng.integers(0, 9, shape) * 2.0**-52,
    "a dead channel": lambda rng, shape: (
        rng.normal(size=shape) * np.where(np.arange(shape[1]) == 0, 1e-310, 1)[:, None]
    ),
    "float32, subnormal": lambda rng, shape: (rng.integers(-40, 40, shape) * 1.4e-45).astype(np.float32),
    "float32, largest": lambda rng, shape: (rng.uniform(-1, 1, shape) * 3.4e38).astype(np.float32),
}


def draw(kind, shape, seed):
    """A weight [O, I, d] of a kind above."""
    rng = np.random.default_rng(seed)
    return (TIED | EXTREME)[kind](rng, shape)


def last_bits(rng, shape):
    return rng.integers(-2, 3, shape) / 3 * (1 + rng.integers(-2, 3, shape) * 2.0**-52)


def sizes(rng, shape):
    return 10.0 ** rng.integers(-320, 307, shape)


def bfloat16(x):
    bits = x.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


def simplex(shape):
    O, _, d = shape
    x = np.zeros(shape)
    x[np.arange(O), :, np.arange(O) % d] = 1
    return x


def cut_at_0(kind):
    """Weights [O, 10, d] and how many filters to keep, so that the layer is cut at height 0.

    In one channel of "plane", "wide" (whose squares would overflow) or "line" rounding may join at height 0
    more points than are equal: where it does, more of them than the others have.
    """
    if kind == "line":
        x = float.fromhex("0x1.bf873f7179b89p+0")
        points = np.array([-5, x, *[x + 2**-52] * 2, *[x + 2**-51] * 3])[:, None]
        equal = np.array([-5, *[x] * 4, 2 * x, 3 * x])[:, None]
        yield np.stack([equal] * 6 + [points] + [equal] * 3, axis=1), 4
        return
    for copies, x in product((3, 5, 7), np.linspace(1.01, 1.99, 25)):
        points = np.array([[x, x]] * copies + [[np.nextafter(x, 2)] * 2, [-5.0, 0]])
        if kind == "wide":
            points *= 2.0**900
            points[-1, 1] = 1
        equal = points[[*range(copies), -1, -1]]
        yield np.stack([equal] * 6 + [points] + [equal] * 3, axis=1), 3
