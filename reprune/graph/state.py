"""Define the state of a traced tensor and a call of an ATen operation."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_iter, tree_map

from ..aliases import Ints


class Free(enum.Enum):
    """A dimension along which a tensor is constant: it fits any size, so it takes the labels it meets."""

    FREE = "free"


FREE = Free.FREE
Dim = Ints | Free | None
"""The labels along one dimension; FREE; or None if every position is fixed."""


class State(NamedTuple):
    """What is known of one tensor."""

    dims: tuple[Dim, ...]
    is_activation: bool
    """Whether it depends on the model's input: an activation, not a weight."""

    def labels(self, dim: int) -> Ints | None:
        """Return the labels along `dim`, or None if it has none."""
        labels = self.dims[dim]
        return None if labels is None or labels is FREE else labels

    def labelled(self) -> list[int]:
        """Return the dimensions that carry labels."""
        return [k for k, d in enumerate(self.dims) if d is not None and d is not FREE]


@dataclass(frozen=True)
class Convolution:
    """A convolution or Linear layer as it was called."""

    kernel: torch.Tensor
    """The effective kernels; convolution: [O, I/groups, ...], transposed: [I, O/groups, ...], Linear layer:
    [O, I]."""
    transposed: bool
    groups: int
    channels: Ints
    """[O] labels of the output channels."""


@dataclass(frozen=True, eq=False)
class Operation:
    """What the schema of an ATen operation says; it is read once, as PyTorch takes long for each part."""

    func: Any
    text: str
    """As it is shown, `aten.add_.Tensor`."""
    name: str
    """`aten::add_` -> `add`: an in-place form shares its rule."""
    in_place: bool
    arguments: dict[str, tuple[int, Any]]
    """{argument: (position, default)}."""
    written: tuple[str, ...]
    """The arguments that it writes to."""
    outs: tuple[str, ...]
    """Those among them that take its results, `out=`."""
    draws: bool
    """Whether it draws random numbers."""
    is_view: bool
    is_pointwise: bool
    """Whether PyTorch says that it is elementwise."""
    has_parts: bool
    """Whether it is composite and, in inference mode, was not decomposed."""
    asks_data: bool
    """Whether the shape of its result depends on values."""


_operations: dict[int, Operation] = {}
"""By the id of each operation, which the record holds: to hash an operation is slow."""


def operation_of(func: Any) -> Operation:
    """Return what is known of `func`."""
    found = _operations.get(id(func))
    return found if found is not None else _operations.setdefault(id(func), _read(func))


def _read(func: Any) -> Operation:
    full = str(func._schema.name)
    name = full.removeprefix("aten::")
    arguments = func._schema.arguments
    written = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    if any(a.name == "training" for a in arguments):  # batch norms do not all declare that they do
        written += [
            a.name for a in arguments if a.name in ("running_mean", "running_var") and a.name not in written
        ]
    return Operation(
        func=func,
        text=str(func),
        name=name if name.endswith("__") else name.rstrip("_"),
        in_place=full.endswith("_") and not full.endswith("__"),
        arguments={a.name: (k, a.default_value) for k, a in enumerate(arguments)},
        written=tuple(written),
        outs=tuple(a.name for a in arguments if a.is_out),
        draws=torch.Tag.nondeterministic_seeded in func.tags,
        is_view=bool(func.is_view),
        is_pointwise=torch.Tag.pointwise in func.tags,
        has_parts=torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"),
        asks_data=torch.Tag.dynamic_output_shape in func.tags,
    )


_PLAIN = (bool, int, float, complex, str)


class Call:
    """One call of an ATen operation; arguments by their schema names: `call["dim"]`."""

    def __init__(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any = None) -> None:
        self.func, self.args, self.kwargs, self.out = func, args, kwargs, out
        self.operation = operation_of(func)
        self.name = self.operation.name
        self._form: Any = None
        self._values = _flat((*args, *kwargs.values()) if kwargs else args)
        self._tensors = [x for x in self._values if isinstance(x, torch.Tensor)]
        self._outputs: tuple[Any, list[torch.Tensor]] = None, []
        """What :meth:`outputs` returned last, and for which `out`."""

    def __getitem__(self, name: str) -> Any:
        if name in self.kwargs:
            return self.kwargs[name]
        found = self.operation.arguments.get(name)
        if found is None:
            raise KeyError(f"{self.func} has no argument {name!r}")
        k, default = found
        return self.args[k] if k < len(self.args) else default

    @property
    def writes_to_self(self) -> bool:
        """It is the in-place form of an operation, `aten::add_`."""
        return self.operation.in_place

    def form(self, x: torch.Tensor) -> Any:
        """Return what decides where the call moves the positions of `x`; None if it has other tensors too."""
        if self._form is None and len(self._tensors) == 1:
            others = [None if a is x else a for a in (*self.args, *sorted(self.kwargs.items()))]
            self._form = (id(self.func), x.shape, x.stride(), x.storage_offset(), repr(others))
        return self._form

    def has(self, name: str) -> bool:
        return name in self.operation.arguments

    def tensors(self) -> list[torch.Tensor]:
        """Return the tensors among the arguments, lists flattened, which is not to be changed."""
        return self._tensors

    def outputs(self) -> list[torch.Tensor]:
        """Return the tensors in the result, lists flattened, which is not to be changed."""
        out, found = self._outputs
        if out is not self.out:
            outs = self.out if isinstance(self.out, (list, tuple)) else (self.out,)
            found = [x for x in _flat(outs) if isinstance(x, torch.Tensor)]
            self._outputs = self.out, found
        return found

    def on(self, x: torch.Tensor, positions: torch.Tensor) -> list[torch.Tensor]:
        """Run the operation again with `positions`, expanded to the shape of `x`, in its place."""

        def put(positions: torch.Tensor) -> list[torch.Tensor]:
            args, kwargs = tree_map(lambda a: positions if a is x else a, (self.args, self.kwargs))
            return [p for p in tree_iter(self.func(*args, **kwargs)) if isinstance(p, torch.Tensor)]

        try:
            return put(positions)
        except RuntimeError:  # a view that cannot be made of an expanded tensor
            return put(positions.contiguous())

    def scalars(self) -> list[Any]:
        """Return the plain values among the arguments, with one NaN for all, so that it equals itself."""
        return [x if x == x else math.nan for x in self._values if isinstance(x, _PLAIN)]


def _flat(values: Iterable[Any]) -> list[Any]:
    """Return `values` with lists replaced by their elements; ATen's arguments nest no deeper."""
    flat: list[Any] = []
    for value in values:
        if value.__class__ is list or value.__class__ is tuple:
            flat += value
        else:
            flat.append(value)
    return flat


def storage_of(x: torch.Tensor) -> int | None:
    """Return a number that tensors sharing memory share, on "meta" too; None where there is none."""
    try:
        return int(x.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # a sparse tensor has several
        return None
