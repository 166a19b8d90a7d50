"""What a training's file says in plain values: whatever goes in comes out, and nothing else is believed."""

import collections
import enum
import json
import math

import numpy as np
import pytest
import torch

from reprune.files.codec import decode, encode


def there_and_back(value):
    tensors = []
    return decode(json.loads(json.dumps(encode(value, tensors, "state"))), tensors)


@pytest.mark.parametrize(
    "dtype", "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (0, 2), (2, 3)])
def test_arrays(dtype, shape):
    rng = np.random.default_rng(0)
    value = np.asarray(rng.standard_normal(shape) * 100, dtype=dtype)
    again = there_and_back(value)
    assert (again.dtype, again.shape) == (value.dtype, shape)
    assert np.array_equal(again, value)


def test_arrays_of_the_largest_and_odd_values():
    for value in (np.array([2**64 - 1], dtype=np.uint64), np.array([math.inf, -math.inf, -0.0, 5e-324])):
        assert there_and_back(value).tobytes() == value.tobytes()
    assert np.isnan(there_and_back(np.array([math.nan]))).all()
    assert np.array_equal(there_and_back(np.arange(6).reshape(2, 3).T), np.arange(6).reshape(2, 3).T)


@pytest.mark.parametrize(
    "value",
    [
        *(True, 0, -(2**70), 10**3000, 0.1, 5e-324, -0.0, math.inf, "", "\ud800 \0 ü", None),
        *([], (), {}, [[[]]], ({},), {"": {}}, {None: 1, True: 2, 1.5: 3, "x": 4, (1, "x"): 5}),
        *({"tensor": 0}, {"array": [1], "dtype": "U9"}, {"dict": [], "tuple": []}),
        collections.Counter({3: 1}),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_plain_values(value):
    again = there_and_back(value)
    assert again == value
    assert type(again) is type(value)
    assert math.copysign(1, again) == math.copysign(1, value) if isinstance(value, float) else True


def itself():
    value = {}
    value["x"] = [value]
    return value


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


class Kind(enum.Enum):
    ONE = 1


@pytest.mark.parametrize(
    "make",
    [
        *(itself, deep, lambda: {1, 2}, lambda: b"x", lambda: 1j, lambda: Kind.ONE, lambda: 10**5000),
        *(lambda: -(10**5000), lambda: collections.deque(), lambda: torch.float32, object, lambda: len),
        lambda: np.array(["x"]),
        lambda: np.array([1j]),
        lambda: np.array([None]),
        lambda: np.array(["2020"], dtype="datetime64[Y]"),
        lambda: np.zeros(2, dtype=[("a", int)]),
        lambda: np.complex64(1),
        lambda: np.datetime64("2020"),
        lambda: np.bytes_(b"x"),
        lambda: torch.zeros(3).to_sparse(),
        lambda: torch.zeros(3, device="meta"),
        lambda: torch.zeros(3, dtype=torch.complex128),
    ],
)
def test_what_cannot_be_written_is_named(make):
    with pytest.raises(ValueError, match=r"^state\['x'\]\[0\]|^state"):
        encode({"x": [make()]}, [], "state")


BOMBS = [
    {"array": [1, 2, 3], "dtype": "U300000000"},
    {"array": [1, 2, 3], "dtype": "S2000000000"},
    {"array": [1, 2, 3], "dtype": "V2000000000"},
    {"array": [1], "dtype": "(1000000000,)f8"},
    {"array": [1], "dtype": "f8,f8"},
    {"array": [1], "dtype": "object"},
    {"array": [1], "dtype": ["f8"]},
    {"array": [1], "dtype": "float64", "shape": [10**9]},
    {"array": [1], "dtype": "float64", "shape": [1, -5]},
    {"array": [1], "dtype": "float64", "shape": "x"},
    {"array": [[1], [1, 2]], "dtype": "float64"},
    {"array": ["1"], "dtype": "float64"},
    {"array": [None], "dtype": "float64"},
    {"array": [{}], "dtype": "float64"},
    {"array": [300], "dtype": "uint8"},
    {"array": [10**30], "dtype": "int64"},
    {"array": [1]},
    {"dtype": "float64"},
    {"tensor": -1},
    {"tensor": 1},
    {"tensor": True},
    {"tensor": "0"},
    {"tensor": [0]},
    [{"tensor": 0}, {"tensor": 0}],
    [],
    {},
    {"odd": []},
    {"tuple": 3},
    {"tuple": {"tensor": 0}},
    {"tuple": [{"tensor": 0}], "dict": []},
    {"dict": [[1, {"tensor": 0}, 3]]},
    {"dict": [3]},
    {"dict": "ab"},
    {"dict": [[[1], {"tensor": 0}]]},
    {"dict": [["a", {"tensor": 0}], ["a", 1]]},
    {"counter": [["a", {"tensor": 0}], ["a", 1]]},
    {"counter": 5},
]


@pytest.mark.parametrize("value", BOMBS, ids=lambda value: str(value)[:50])
def test_what_was_not_written_is_refused(value):
    with pytest.raises(ValueError, match=r"."):
        decode(value, [torch.zeros(1)])


def test_depth_is_refused():
    for kind in ("tuple", None):
        value = {"tensor": 0}
        for _ in range(100_000):
            value = {"tuple": [value]} if kind else [value]
        with pytest.raises(ValueError, match="nested too deeply"):
            decode(value, [torch.zeros(1)])
