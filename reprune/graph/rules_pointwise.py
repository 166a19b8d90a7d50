"""Follow labels through elementwise operations, with broadcasting."""

from __future__ import annotations

from torch import Tensor

from .propagation import Propagation
from .state import FREE, Call, Dim

_ADDITIONS = frozenset({"add", "sub", "rsub"})


def pointwise(known: Propagation, call: Call, is_activation: bool) -> None:
    """Unite positions that meet in an element; a dimension of size 1 fits them all."""
    tensors = call.tensors()
    for out in call.outputs():
        if len(tensors) == 1 and tensors[0].shape == out.shape:
            there = known.state(tensors[0]).dims
            dims: list[Dim] = [dim if n > 1 else None for dim, n in zip(there, out.shape, strict=True)]
        else:
            dims = [_meet(known, call, tensors, out, d) for d in range(out.dim())]
        if any(out is x for x in tensors):
            known.write(out, dims, is_activation, call.operation.text)
        else:
            known.set(out, dims, is_activation)


def _meet(known: Propagation, call: Call, tensors: list[Tensor], out: Tensor, d: int) -> Dim:
    """Unite what meets in dimension `d` of `out` and return what that dimension carries.

    Where one of them is fixed so is the result, as all are that meet it.
    """
    carried: Dim = FREE
    flowed = fixed = False
    for x in tensors:
        k = d - out.dim() + x.dim()
        if k < 0 or x.shape[k] == 1:
            continue
        state = known.state(x)
        dim = state.dims[k]
        is_activation = state.is_activation and known.is_activation(x)
        if is_activation and flowed and call.name in _ADDITIONS and _has_labels(dim) and _has_labels(carried):
            known.constraints.meet(carried, dim)  # type: ignore[arg-type]
        fixed = fixed or dim is None
        carried = known.unite(carried, dim, f"meets fixed channels in {call.operation.text}")
        flowed = flowed or is_activation
    return carried if out.shape[d] > 1 and not fixed else None


def _has_labels(dim: Dim) -> bool:
    return dim is not None and dim is not FREE
