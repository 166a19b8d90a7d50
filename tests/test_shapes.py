"""Shapes that are worked out here are PyTorch's, and so are the places of dimensions."""

import itertools

import numpy as np
import pytest
import torch

from reprune.graph import rules_shape
from reprune.graph.dimensions import places_of
from reprune.graph.norm_operation import NORMALISED
from reprune.graph.propagation import Propagation
from reprune.graph.shapes import result_of
from reprune.graph.state import Call

A = torch.ops.aten


def on_meta(*sizes, dtype=torch.float32, form=torch.contiguous_format):
    return torch.empty(sizes, dtype=dtype, device="meta", memory_format=form)


def described(out):
    if isinstance(out, torch.Tensor):
        return out.shape, out.stride(), out.dtype, out.device
    return [described(x) for x in out]


LAST = torch.channels_last
x4, x2, v = on_meta(2, 8, 5, 6), on_meta(4, 8), on_meta(8)
CALLS = {
    "relu": (A.relu.default, x4),
    "relu channels last": (A.relu.default, on_meta(2, 8, 5, 6, form=LAST)),
    "relu ambiguous": (A.relu.default, on_meta(2, 8, 1, 1, form=LAST)),
    "relu of one channel": (A.relu.default, on_meta(2, 1, 5, 6, form=LAST)),
    "relu transposed": (A.relu.default, x4.transpose(1, 2)),
    "relu expanded": (A.relu.default, on_meta(2, 8, 1, 1).expand(2, 8, 5, 6)),
    "relu of a part": (A.relu.default, x4[:, 2:5, :, ::2]),
    "relu of a transposed part": (A.relu.default, x4.permute(3, 1, 0, 2)[1:4, :, 0]),
    "relu of ones": (A.relu.default, on_meta(4, 1, 8, 1).transpose(1, 2)[::2]),
    "relu float64": (A.relu.default, on_meta(2, 8, dtype=torch.float64)),
    "relu bfloat16": (A.relu.default, on_meta(2, 8, dtype=torch.bfloat16)),
    "relu in place": (A.relu_.default, x4),
    "hardtanh in place": (A.hardtanh_.default, x4, 0.0, 6.0),
    "hardswish": (A.hardswish.default, x4),
    "gelu": (A.gelu.default, x2),
    "clamp": (A.clamp.default, x2, 0, 1),
    "add": (A.add.Tensor, x4, x4),
    "add in place": (A.add_.Tensor, x4, on_meta(8, 1, 1)),
    "add a number": (A.add.Tensor, x4, 2.5),
    "add two formats": (A.add.Tensor, x4, on_meta(2, 8, 5, 6, form=LAST)),
    "add both channels last": (A.add.Tensor, *(on_meta(2, 8, 5, 6, form=LAST) for _ in "ab")),
    "add a channel": (A.add.Tensor, x4, on_meta(2, 8, 1, 1)),
    "add to a channel": (A.add.Tensor, on_meta(2, 8, 1, 1), x4),
    "add across": (A.add.Tensor, on_meta(4, 1), on_meta(1, 8)),
    "add of two types": (A.add.Tensor, x2, on_meta(4, 8, dtype=torch.float64)),
    "multiply by integers": (A.mul.Tensor, x2, on_meta(4, 8, dtype=torch.int64)),
    "multiply by a complex number": (A.mul.Tensor, x2, 1j),
    "divide and round": (A.div.Tensor_mode, x2, x2),
    "power": (A.pow.Tensor_Scalar, x2, 2),
    "convolution": (
        A.convolution.default,
        x4,
        on_meta(6, 8, 3, 3),
        v[:6],
        [2, 1],
        [1, 0],
        [1, 2],
        False,
        [0, 0],
        1,
    ),
    "convolution in groups": (
        A.convolution.default,
        x4,
        on_meta(8, 2, 1, 1),
        None,
        [1, 1],
        [0, 0],
        [1, 1],
        False,
        [0, 0],
        4,
    ),
    "convolution channels last": (
        A.convolution.default,
        on_meta(2, 8, 5, 6, form=LAST),
        on_meta(6, 8, 3, 3, form=LAST),
        None,
        *([1, 1], [0, 0], [1, 1], False, [0, 0], 1),
    ),
    "convolution transposed": (
        A.convolution.default,
        x4,
        on_meta(8, 6, 3, 3),
        None,
        [2, 2],
        [0, 0],
        [1, 1],
        True,
        [1, 1],
        1,
    ),
    "softmax": (A._softmax.default, x2, 1, False),
    "safe softmax": (A._safe_softmax.default, x2, 1),
    "logarithm of a softmax": (A._log_softmax.default, x2.t(), 1, False),
    "batch norm": (A.native_batch_norm.default, x4, v, v, v, v, False, 0.1, 1e-5),
    "batch norm without scales": (A.native_batch_norm.default, x4, None, None, v, v, False, 0.1, 1e-5),
    "batch norm channels last": (
        A.native_batch_norm.default,
        on_meta(2, 8, 5, 6, form=LAST),
        v,
        v,
        v,
        v,
        False,
        0.1,
        1e-5,
    ),
    "batch norm of a batch": (A.native_batch_norm.default, x4, v, v, v, v, True, 0.1, 1e-5),
    "layer norm": (A.native_layer_norm.default, x2, [8], v, v, 1e-5),
    "layer norm of two": (A.native_layer_norm.default, x4, [5, 6], on_meta(5, 6), on_meta(5, 6), 1e-5),
    "layer norm last": (A.native_layer_norm.default, x4.permute(0, 2, 3, 1), [8], v, v, 1e-5),
    "layer norm without scales": (A.native_layer_norm.default, x2.t()[:, :3], [3], None, None, 1e-5),
    "norm over channels": (NORMALISED, x2, v, v, "layer", -1, 12, 1e-5),
    "norm over channels of images": (NORMALISED, x4, v, None, "rms", 1, 8, 1e-5),
    "norm over channels last": (NORMALISED, x4.permute(0, 2, 3, 1), v, v, "response", -1, 8, 1e-5),
    "clone": (A.clone.default, x4),
    "clone transposed": (A.clone.default, x4.transpose(1, 2)),
    "clone of a part": (A.clone.default, x4[:, 1:3]),
    "clone expanded": (A.clone.default, on_meta(2, 8, 1, 1).expand(2, 8, 5, 6)),
    "clone made contiguous": (A.clone.default, x4.transpose(1, 2)),
    "roll": (A.roll.default, x4, [1, 2], [2, 3]),
    "roll of all": (A.roll.default, x2, [1]),
    "roll transposed": (A.roll.default, x2.t(), [1], [0]),
    "mm": (A.mm.default, x2, on_meta(8, 3)),
    "mm transposed": (A.mm.default, x2.t(), on_meta(4, 3)),
    "addmm": (A.addmm.default, v, x2, on_meta(8, 8)),
    "bmm": (A.bmm.default, on_meta(3, 4, 5), on_meta(3, 5, 2)),
    "mean": (A.mean.dim, x4, [2, 3], True),
    "mean without": (A.mean.dim, x4, [-1, -2]),
    "mean channels last": (A.mean.dim, on_meta(2, 8, 5, 6, form=LAST), [2, 3], True),
    "mean of all": (A.mean.default, x4),
    "cat": (A.cat.default, [x4, on_meta(2, 3, 5, 6)], 1),
    "cat from behind": (A.cat.default, [x2, x2, x2], -1),
    "cat channels last": (A.cat.default, [on_meta(2, 8, 5, 6, form=LAST)] * 2, 1),
    "cat with an empty one": (A.cat.default, [on_meta(0), x2], 0),
}


NAMED = {
    "divide and round": {"rounding_mode": "floor"},
    "clone made contiguous": {"memory_format": torch.contiguous_format},
}


@pytest.mark.parametrize("name", CALLS)
def test_results_are_pytorchs(name):
    func, *args = CALLS[name]
    kwargs = NAMED.get(name, {})
    out = result_of(Call(func, tuple(args), kwargs))
    if out is None:
        return  # PyTorch is asked
    expected = func(*args, **kwargs)
    if name.startswith("batch norm"):  # whose statistics are nobody's in evaluation mode
        (out, *_), (expected, *_) = out, expected
    assert described(out) == described(expected)
    assert (out is args[0]) == (expected is args[0])


def test_most_results_are_known():
    known = [n for n, (func, *args) in CALLS.items() if result_of(Call(func, tuple(args), {})) is not None]
    assert {
        "relu",
        "add",
        "batch norm",
        "layer norm",
        "norm over channels",
        "mm",
        "addmm",
        "bmm",
        "mean",
        "cat",
    } <= set(known)


x = torch.zeros(2, 6, 4, 3)
VIEWS = [
    (A.t.default, (torch.zeros(4, 3),)),
    (A.transpose.int, (x, 1, -1)),
    (A.permute.default, (x, [0, 2, -1, 1])),
    (A.unsqueeze.default, (x, 1)),
    (A.squeeze.default, (x[:, :1],)),
    (A.expand.default, (torch.zeros(6, 1, 3), [2, 6, 4, 3])),
    (A.select.int, (x, 2, 1)),
    (A.slice.Tensor, (x, 2, 1, 3)),
    (A.detach.default, (x,)),
    *((A.view.default, (x, sizes)) for sizes in ([12, 4, 3], [2, 6, 12], [2, 24, 3], [2, 2, 3, 4, 3], [-1])),
    *(
        (A.view.default, (x, sizes))
        for sizes in ([2, 6, 2, 2, 3], [1, 2, 6, 4, 3], [2, 3, 8, 3], [6, 2, 4, 3])
    ),
]


@pytest.mark.parametrize("k", range(len(VIEWS)))
def test_dimensions_are_where_positions_are(k, monkeypatch):
    func, args = VIEWS[k]
    seen = args[0]
    for wanted in itertools.chain.from_iterable(
        itertools.combinations(range(seen.dim()), n) for n in range(1, seen.dim() + 1)
    ):
        if any(seen.shape[d] < 2 for d in wanted):
            continue
        labels, count = {}, 0
        for d in wanted:
            labels["x", d] = np.arange(count, count + seen.shape[d])
            count += seen.shape[d]
        found = []
        for shortcut in (places_of, lambda *a: None):
            monkeypatch.setattr(rules_shape, "places_of", shortcut)
            known, out = Propagation({"x": seen}, labels), func(*args)
            rules_shape.movement(known, Call(func, args, {}, out), is_activation=False)
            dims = [d.tolist() if isinstance(d, np.ndarray) else d for d in known.state(out).dims]
            constraints = known.constraints
            edges = [[a.tolist() for a in edge] for edge in constraints.edges]
            found.append((dims, edges, [(p.tolist(), why) for p, why in constraints.pins]))
        assert found[0] == found[1]


def test_views_that_keep_their_dimensions_are_known():
    known = [places_of(Call(func, args, {}), args[0], func(*args), [1]) for func, args in VIEWS]
    assert sum(places is not None for places in known) >= 10
