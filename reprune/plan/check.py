"""Check that a plan is valid: its positions, its counts, and the model that it is applied to."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..modules.linear import is_linear, is_turned
from ..modules.sizes import rows_left
from ..modules.slicing import Slices, named_tensors, sliced_shape
from ..modules.wrappers import named_modules, named_parameters

Positions = Mapping[int, Any]


def fingerprint_of(shapes: Mapping[str, Iterable[int]]) -> str:
    """Return a digest of the names and shapes of a model's parameters."""
    return hashlib.sha256(json.dumps(sorted((name, [*s]) for name, s in shapes.items())).encode()).hexdigest()


def check_positions(what: str, kept: Any, size: int) -> None:
    """Raise `ValueError` unless `kept` are sorted distinct positions below `size`."""
    whole = isinstance(kept, np.ndarray) and kept.dtype.kind in "iu" and kept.ndim == 1
    if not (whole and kept.size and kept[0] >= 0 and kept[-1] < size and bool((kept[1:] > kept[:-1]).all())):
        raise ValueError(
            f"plan: {what} should be an array of different positions below {size}, sorted, at least one; "
            f"got {kept}"
        )


def check_parts(
    keep: Mapping[str, Any],
    channels: Mapping[str, int],
    slices: Mapping[str, Positions],
    shapes: Mapping[str, tuple[int, ...]],
    coverage: Mapping[str, float],
) -> None:
    """Raise `ValueError` unless the parts of a plan fit each other."""
    unknown = keep.keys() - channels.keys()
    if unknown:
        raise ValueError(f"plan: keep names {min(unknown)}, which is no layer of its channels")
    for name, kept in keep.items():
        check_positions(f"keep of {name}", kept, channels[name])
    for name, share in coverage.items():
        if name not in keep or not 0 <= share <= 1:
            raise ValueError(f"plan: the coverage of {name} should be that of a layer in keep, 0 to 1")
    if slices.keys() != shapes.keys():
        raise ValueError(f"plan: {min(slices.keys() ^ shapes.keys())} has no slices, or no shape")
    for name, dims in slices.items():
        for dim, kept in dims.items():
            if not 0 <= dim < len(shapes[name]):
                raise ValueError(f"plan: {name} of shape {shapes[name]} has no dimension {dim}")
            check_positions(f"slices of {name} along {dim}", kept, shapes[name][dim])


def check_model(
    model: nn.Module,
    fingerprint: str,
    keep: Mapping[str, Any],
    params: tuple[int, int],
    slices: Slices,
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Raise `ValueError` unless `model` is the one that a plan was made for, and it stays in one piece."""
    tensors = named_tensors(model)
    for name, shape in shapes.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shape:
            what = "has no such tensor" if found is None else f"has shape {found}"
            raise ValueError(
                f"plan: made for a model whose {name} has shape {shape}; this model {what}.  A plan fits the "
                "model that it was made for, before it is pruned"
            )
    own = {name: tuple(parameter.shape) for name, parameter in named_parameters(model).items()}
    count = sum(math.prod(shape) for shape in own.values())
    if count != params[0] or fingerprint not in ("", fingerprint_of(own)):
        raise ValueError(
            f"plan: made for a model with {params[0]:,} parameters; this one has {count:,}, or others by "
            "name or shape.  A plan fits the model that it was made for, before it is pruned"
        )
    left = sum(math.prod(sliced_shape(shape, slices.get(name, {}))) for name, shape in own.items())
    if left != params[1]:
        raise ValueError(
            f"plan: it should leave {params[1]:,} parameters, and its slices leave {left:,}: a part of them "
            "is missing or wrong"
        )
    names = {id(tensor): name for name, tensor in tensors.items()}
    for name, module in named_modules(model).items():
        own_tensors = [t for t in (*module._parameters.values(), *module._buffers.values()) if t is not None]
        cuts = {id(t): slices[names[id(t)]] for t in own_tensors if names.get(id(t)) in slices}
        _check_layer(name, module, own_tensors, cuts, keep.get(name))


def _check_layer(
    name: str, module: nn.Module, tensors: list[Tensor], cuts: Mapping[int, Positions], kept: Any
) -> None:
    """Raise `ValueError` if `cuts` {id of a tensor: its slices} differ within a layer, or from `kept`."""
    _check_groups(name, module, cuts)
    norm = isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm))
    turned = isinstance(module, nn.modules.conv._ConvTransposeNd) or is_turned(module)
    if not norm and not (is_linear(module) or isinstance(module, nn.modules.conv._ConvNd)):
        return
    if (
        isinstance(module, nn.modules.conv._ConvTransposeNd) and module.groups > 1
    ):  # the columns of its weight are the channels of one group
        return
    # a weight may stand there in parts, for a hook to compute it
    lines = {id(t): int(turned and t.dim() > 1) for t in tensors if t.dim() == 1 or not norm}
    found = [cuts[key][dim] for key, dim in lines.items() if dim in cuts.get(key, {})]
    part = norm and 1 < len(found) < len(lines)  # one alone may be used without its layer
    if found and kept is not None:
        found.append(kept)
    if part or any(not np.array_equal(positions, found[0]) for positions in found):
        raise ValueError(f"plan: the tensors of {name} would keep different channels")


def _check_groups(name: str, module: nn.Module, cuts: Mapping[int, Positions]) -> None:
    """Raise `ValueError` unless the groups of a layer can stay alike."""
    if not cuts:  # of a scripted module too, which is not cut and whose tensors are in no dictionary
        return
    weight = module._parameters.get("weight")
    groups = getattr(module, "groups", getattr(module, "num_groups", 1))
    if weight is None or groups == 1 or id(weight) not in cuts:
        return
    cut = cuts[id(weight)]
    if weight.dim() == 1:
        apart = bool(cut[0].size % (weight.shape[0] // groups)) if 0 in cut else False
    elif 0 in cut:
        counts = rows_left(cut[0], weight.shape[0], groups)
        narrowed = 1 in cut or counts.size == 1  # whole groups leave, or all become narrower, or both
        apart = bool((counts != (counts[0] if narrowed else weight.shape[0] // groups)).any())
    else:
        apart = bool(weight.shape[0] % groups)
    if apart:
        raise ValueError(f"plan: {name} would have groups of different widths")
