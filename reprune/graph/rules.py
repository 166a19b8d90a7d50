"""Map each ATen operation to the rule that follows labels through it.

Views and elementwise operations are not listed, since ATen itself marks them. An operation without a rule
pins what reaches it; :func:`reprune.graph.register_rule` gives it one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..aliases import Ints
from . import rules_compute as compute
from . import rules_shape as shape
from .propagation import Propagation
from .rules_attention import FUSED, attention
from .rules_pointwise import pointwise
from .state import FREE, Call

Rule = Callable[[Propagation, Call, bool], "list[Ints] | None"]
"""A function that sets the states of a call's outputs. It returns the dimensions that the FLOPs scale
with."""

FACTORIES = frozenset(
    (
        "zeros ones empty full rand randn zeros_like ones_like empty_like full_like rand_like randn_like "
        "new_zeros new_ones new_empty new_full scalar_tensor empty_strided new_empty_strided"
    ).split()
)

_MOVEMENTS = frozenset(
    (
        "roll flip index_select index pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle "
        "repeat repeat_interleave _unsafe_view _reshape_alias reshape unsafe_split unsafe_chunk "
        "unsafe_split_with_sizes"
    ).split()
)

_COMPLEX = frozenset(("view_as_complex", "view_as_real", "_conj", "_neg_view"))
"""Views of complex numbers, which positions are not."""

_POINTWISE = frozenset(
    (
        "copy clone contiguous _to_copy fill zero bernoulli normal uniform random exponential log_normal "
        "native_dropout hardswish silu mish prelu _prelu_kernel rrelu_with_noise fused_dropout dropout"
    ).split()
)

_SPATIAL = (
    "max_pool{} max_pool{}_with_indices avg_pool{} adaptive_avg_pool{} _adaptive_avg_pool{} "
    "adaptive_max_pool{} upsample_nearest{} _upsample_nearest_exact{} upsample_linear{} upsample_bilinear{} "
    "upsample_trilinear{} upsample_bicubic{} _upsample_bilinear{}_aa _upsample_bicubic{}_aa "
    "reflection_pad{} replication_pad{}"
)

SPATIAL = {name.format(f"{n}d"): n for n in (1, 2, 3) for name in _SPATIAL.split()}
"""{operation that works on the last dimensions, of each channel by itself: how many they are}."""

_REDUCTIONS = (
    "mean sum amax amin var std var_mean std_mean logsumexp prod any all argmax argmin max min "
    "linalg_vector_norm norm median mode nanmean nansum softmax _softmax _safe_softmax log_softmax "
    "_log_softmax cumsum cumprod sort topk"
)


def is_movement(call: Call) -> bool:
    """Return whether the call only moves values, so that it can be run on position numbers."""
    return (call.operation.is_view and call.name not in _COMPLEX) or call.name in _MOVEMENTS


def is_pointwise(call: Call) -> bool:
    """Return whether each element of the result is computed from the elements at its place."""
    return call.operation.is_pointwise or call.name in _POINTWISE


def no_rule(known: Propagation, call: Call, is_activation: bool) -> None:
    """Pin all channels: an unknown operation may do anything to them."""
    for x in call.tensors():
        known.pin(x, f"reaches {call.func}, which has no rule")
    for out in call.outputs():
        known.set(out, [None] * out.dim(), is_activation)


def blank(known: Propagation, call: Call, is_activation: bool) -> None:
    """Mark the output as a new tensor with the same value everywhere."""
    for out in call.outputs():
        known.set(out, [FREE if size > 1 else None for size in out.shape], is_activation=False)


RULES: dict[str, Rule] = {
    "convolution": compute.convolution,
    "mm": compute.matmul,
    "addmm": compute.matmul,
    "bmm": compute.matmul,
    "baddbmm": compute.matmul,
    "linear": compute.linear,
    "embedding": compute.embedding,
    "native_batch_norm": compute.batch_norm,
    "_native_batch_norm_legit": compute.batch_norm,
    "_native_batch_norm_legit_no_training": compute.batch_norm,
    "_batch_norm_with_update": compute.batch_norm,
    "_batch_norm_no_update": compute.batch_norm,
    "cudnn_batch_norm": compute.batch_norm,
    "miopen_batch_norm": compute.batch_norm,
    "native_group_norm": compute.group_norm,
    "native_layer_norm": compute.layer_norm,
    "_fused_rms_norm": compute.layer_norm,
    "reprune::normalised": compute.norm_over_channels,
    "_weight_norm_interface": compute.weight_norm,
    "cat": shape.cat,
    "stack": shape.stack,
    "constant_pad_nd": shape.pad,
    "glu": shape.glu,
    "index_put": shape.index_put,
    "torchvision::roi_align": compute.roi_align,
    **dict.fromkeys(("grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler"), compute.grid_sampler),
    "affine_grid_generator": compute.affine_grid,
    "as_strided": shape.as_strided,
    "resize": shape.resize,
    "view_as_complex": shape.as_complex,
    "view_as_real": shape.as_real,
    **dict.fromkeys(("_conj", "_neg_view"), shape.conjugate),
    **dict.fromkeys(FUSED, attention),
    **dict.fromkeys(FACTORIES, blank),
    **dict.fromkeys(_REDUCTIONS.split(), shape.reduction),
    **{name: shape.spatial(n) for name, n in SPATIAL.items()},
}


CUSTOM: dict[str, Rule] = {}
"""Rules that users registered; these take precedence."""


def has_rule(call: Call) -> bool:
    """Return whether the operation is in a table, by name."""
    return call.name in CUSTOM or call.name in RULES


def rule_of(call: Call) -> Rule:
    for rules in (CUSTOM, RULES):
        if call.name in rules:
            return rules[call.name]
    if is_movement(call):
        return shape.movement
    return pointwise if is_pointwise(call) else no_rule


def rule_named(name: str) -> Rule | None:
    """Return the rule of the ATen operation `name`, or None if it has none."""
    if name in RULES:
        return RULES[name]
    packet = getattr(torch.ops.aten, name, None)
    overloads = [getattr(packet, overload) for overload in packet.overloads()] if packet is not None else []
    if name in _MOVEMENTS or any(overload.is_view for overload in overloads):
        return shape.movement
    if name in _POINTWISE or any(torch.Tag.pointwise in overload.tags for overload in overloads):
        return pointwise
    return None
