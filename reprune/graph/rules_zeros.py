"""Tell which activations are zero wherever a channel is masked.

A masked network has zeros in all tensors of a channel that has left: the rows that make it, its bias, the
affine parameters of its norms. Whether the channel itself is zero depends on what is in between: a ReLU keeps
zeros, a sigmoid does not. A norm over channels takes removed channels as zeros, so they can leave only where
they are zeros in the masked network too.

An operation that is not listed is taken to make anything of zeros. Dimensions are counted from the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Set

import numpy as np
from torch import Tensor

from .labels import FIXED
from .preserving import written_by
from .propagation import Propagation
from .rules_attention import FUSED
from .state import Call, State
from .vanishing import NOWHERE


def note_zeros(known: Propagation, call: Call, states: Sequence[State]) -> None:
    """Record where the results of `call`, whose arguments had `states`, are zero; its rule has run."""
    rule = _RULES.get(call.name) or (_moved if call.operation.is_view else None)
    written = written_by(call) if call.operation.written else []
    for out in call.outputs():
        state = known.state(out)
        labelled = state.labelled()
        found = NOWHERE
        if rule is not None and labelled and (out.is_floating_point() or out.is_complex()):
            found = rule(_Zeros(known, call, states, state, labelled))
        # else its numbers may be places, as of maxima, which count from 0
        known.vanishing.set(out, found)
        if call.operation.in_place and len(found) == len(labelled):
            written = [x for x in written if x is not out]
    for x in written:
        known.vanishing.spoil(x)


class _Zeros:
    """A call, one of its results, and along which dimensions its arguments are zero where masked."""

    __slots__ = "_known", "_states", "call", "labelled", "out", "tensors"

    def __init__(
        self, known: Propagation, call: Call, states: Sequence[State], out: State, labelled: list[int]
    ) -> None:
        self.call, self.out = call, out
        self.tensors = call.tensors()
        ndim = len(out.dims)
        self.labelled = [d - ndim for d in labelled]
        """The dimensions of the result with labels."""
        self._known = known
        self._states = states

    def state(self, x: Tensor) -> State:
        for one, state in zip(self.tensors, self._states, strict=True):
            if one is x:
                return state
        raise AssertionError("not an argument of the call")

    def zero(self, x: Tensor, d: int) -> bool:
        """Return whether `x` is zero at the masked positions of dimension `d` of the result."""
        return d + x.dim() >= 0 and self.state(x).labels(d) is not None and d in self.along(x)

    def along(self, x: Tensor) -> Set[int]:
        return self._known.vanishing.along(x)

    def vanishes(self, x: Tensor | None, dims: Iterable[int] | None = None) -> bool:
        """Return whether `x` is zero at all of its masked positions, of `dims` or any dimension.

        It is if it is None, or has none. What is FREE takes the labels that it meets, and need not be zero.
        """
        if x is None:
            return True
        state, along = self.state(x), self.along(x)
        for d in dims or range(-len(state.dims), 0):
            if d not in along and state.dims[d] is not None:
                return False
        return True


_Rule = Callable[[_Zeros], Set[int]]
"""A function that returns the dimensions along which the result is zero wherever a channel is masked."""


def _kept(zeros: _Zeros) -> Set[int]:
    """Keep zeros at each place of the first argument."""
    x = zeros.tensors[0]
    return {d for d in zeros.labelled if zeros.zero(x, d)}


def _moved(zeros: _Zeros) -> Set[int]:
    """Move zeros with their labels; a mean and a maximum of zeros are zero."""
    x = zeros.tensors[0]
    state, along = zeros.state(x), zeros.along(x)
    whence = state.labelled()
    if not along:
        return NOWHERE
    if all(k - x.dim() in along for k in whence):
        return set(zeros.labelled)
    found = set()
    for d in zeros.labelled:
        labels = zeros.out.labels(d)
        assert labels is not None
        label = labels[np.argmax(labels != FIXED)]
        origins = [k for k in whence if label in state.dims[k]]  # type: ignore[operator]
        if origins and all(k - x.dim() in along for k in origins):  # an outer product has a channel twice
            found.add(d)
    return found


def _sum(zeros: _Zeros) -> Set[int]:
    """Return where all terms of a sum are zero."""
    if any(x != 0 for x in zeros.call.args[:2] if not isinstance(x, Tensor)):
        return NOWHERE
    return {d for d in zeros.labelled if all(zeros.zero(x, d) for x in zeros.tensors)}


def _product(zeros: _Zeros) -> Set[int]:
    """Return where a factor of a product is zero."""
    return {d for d in zeros.labelled if any(zeros.zero(x, d) for x in zeros.tensors)}


def _quotient(zeros: _Zeros) -> Set[int]:
    """Keep zeros that are divided by what is the same for all channels: zero by zero is no number."""
    above, below = zeros.call.args[:2]
    if not isinstance(above, Tensor):
        return NOWHERE
    divided = (
        {} if not isinstance(below, Tensor) else {d - below.dim() for d in zeros.state(below).labelled()}
    )
    return {d for d in zeros.labelled if zeros.zero(above, d) and d not in divided}


def _power(zeros: _Zeros) -> Set[int]:
    exponent = zeros.call.args[1]
    return _kept(zeros) if isinstance(exponent, (int, float)) and exponent > 0 else NOWHERE


def _clamp(zeros: _Zeros) -> Set[int]:
    call = zeros.call
    low, high = (call["min_val"], call["max_val"]) if call.has("min_val") else (call["min"], call["max"])
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return NOWHERE
    return _kept(zeros) if (low is None or low <= 0) and (high is None or high >= 0) else NOWHERE


def _pad(zeros: _Zeros) -> Set[int]:
    return _kept(zeros) if not zeros.call["value"] else NOWHERE


def _joined(zeros: _Zeros) -> Set[int]:
    """Return where each of the parts side by side is zero; along the joint, at its own masked positions."""
    ndim = len(zeros.out.dims)
    joint = zeros.call["dim"] % ndim - ndim
    parts = [x for x in zeros.tensors if x.dim() == ndim]
    return {
        d
        for d in zeros.labelled
        if all((d == joint and zeros.state(x).labels(d) is None) or zeros.zero(x, d) for x in parts)
    }


def _stacked(zeros: _Zeros) -> Set[int]:
    """Return where each of the parts, stacked along a new dimension, is zero."""
    ndim = len(zeros.out.dims)
    new = zeros.call["dim"] % ndim - ndim
    there = {d: d if d > new else d + 1 for d in zeros.labelled if d != new}
    return {d for d, k in there.items() if all(zeros.zero(x, k) for x in zeros.tensors)}


def _layer(zeros: _Zeros) -> Set[int]:
    """Make zeros of masked rows, if their bias is masked too."""
    call = zeros.call
    weight: Tensor = call["weight"]
    rows = range(-weight.dim(), 2 - weight.dim())
    if not zeros.vanishes(weight, rows) or not zeros.vanishes(call["bias"]):
        return NOWHERE
    return {-1 if call.name == "linear" else 1 - weight.dim()} & set(zeros.labelled)


def _matrix_product(zeros: _Zeros) -> Set[int]:
    """Return where rows on the left, or columns on the right, are zero, and what is added too."""
    *added, left, right = zeros.tensors
    makers = {-1: [right], -2: [left], -3: [left, right]}
    return {
        d
        for d in zeros.labelled
        if any(zeros.zero(x, d) for x in makers[d]) and all(zeros.zero(x, d) for x in added)
    }


def _embedding(zeros: _Zeros) -> Set[int]:
    return {-1} & set(zeros.labelled) if zeros.vanishes(zeros.call["weight"]) else NOWHERE


def _affine(zeros: _Zeros) -> Set[int]:
    """Return where a norm multiplies by zero, and adds zero."""
    call = zeros.call
    if call["weight"] is None or not (zeros.vanishes(call["weight"]) and zeros.vanishes(call["bias"])):
        return NOWHERE
    if call.name == "native_layer_norm":
        channels = set(range(-len(call["normalized_shape"]), 0))
    else:
        channels = {(call["dim"] if call.has("dim") else 1) % len(zeros.out.dims) - len(zeros.out.dims)}
    return channels & set(zeros.labelled)


def _response(zeros: _Zeros) -> Set[int]:
    """Keep zeros of a norm over channels; a response norm adds to its input."""
    return _affine(zeros) & _kept(zeros) if zeros.call["kind"] == "response" else _affine(zeros)


def _attention(zeros: _Zeros) -> Set[int]:
    """Return where the values, of which an attention takes means, are zero."""
    return {d for d in zeros.labelled if zeros.zero(zeros.call["value"], d)}


def _strides(zeros: _Zeros) -> Set[int]:
    """Keep zeros where only strides are set, in place, as by a pool to one pixel."""
    return _kept(zeros) if zeros.call.writes_to_self else NOWHERE


_KEEP = (
    "relu relu6 gelu silu mish hardswish leaky_relu elu celu selu tanh softsign tanhshrink hardshrink "
    "softshrink neg abs sign sin asin sinh atan erf expm1 log1p sqrt square floor ceil round trunc clone "
    "contiguous _to_copy detach dropout native_dropout glu "
    "max_pool{} max_pool{}_with_indices avg_pool{} adaptive_avg_pool{} _adaptive_avg_pool{} "
    "adaptive_max_pool{} upsample_nearest{} _upsample_nearest_exact{} upsample_linear{} upsample_bilinear{} "
    "upsample_trilinear{} upsample_bicubic{} _upsample_bilinear{}_aa _upsample_bicubic{}_aa "
    "reflection_pad{} replication_pad{}"
)

_MOVE = (
    "roll flip index_select repeat reshape _unsafe_view _reshape_alias pixel_shuffle pixel_unshuffle "
    "channel_shuffle native_channel_shuffle mean sum amax amin linalg_vector_norm"
)

_RULES: dict[str, _Rule] = {
    **{name.format(f"{n}d"): _kept for n in (1, 2, 3) for name in _KEEP.split()},
    **dict.fromkeys(_MOVE.split(), _moved),
    **dict.fromkeys(("add", "sub", "rsub"), _sum),
    "mul": _product,
    "div": _quotient,
    "pow": _power,
    **dict.fromkeys(("clamp", "hardtanh"), _clamp),
    "constant_pad_nd": _pad,
    "cat": _joined,
    "stack": _stacked,
    "as_strided": _strides,
    **dict.fromkeys(("convolution", "linear"), _layer),
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm"), _matrix_product),
    "embedding": _embedding,
    **dict.fromkeys(
        (
            "native_batch_norm",
            "_native_batch_norm_legit_no_training",
            "cudnn_batch_norm",
            "native_group_norm",
            "native_layer_norm",
        ),
        _affine,
    ),
    "reprune::normalised": _response,
    **dict.fromkeys(FUSED, _attention),
}
