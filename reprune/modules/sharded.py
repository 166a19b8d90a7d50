"""Look at a model whose parameters `torch.distributed.fsdp.fully_shard` has sharded over processes.

Its parameters are DTensors, of which every process holds a part. What gathers a whole one is a collective
call: all processes make it, in the same order.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..aliases import Ints
from ..distributed import meet
from .held import modules_of


def is_sharded(model: nn.Module) -> bool:
    """Return whether parameters of `model` are, or between two passes will be, DTensors."""
    modules = modules_of(model)
    one_of_each = {type(x): x for module in modules for x in module._parameters.values()}
    return any(map(is_part, one_of_each.values())) or any(
        map(_is_sharded_module, {type(module): module for module in modules}.values())
    )


def sharded_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Return the modules of `model` that were given to `fully_shard`."""
    return filter(_is_sharded_module, model.modules())


def is_part(tensor: Any) -> bool:
    """Return whether `tensor` is a DTensor."""
    known = sys.modules.get("torch.distributed.tensor")
    return known is not None and isinstance(tensor, known.DTensor)


def settle(model: nn.Module) -> None:
    """Free what the last forward pass gathered, so that the parameters of `model` are DTensors.

    Raises `TypeError` if one was sharded by anything but `fully_shard`.
    """
    own: set[tuple[int, str]] = set()
    for module in sharded_modules(model):
        module.reshard()  # type: ignore[operator]  # of FSDPModule
        own.update(_sharded_names(module))
    for path, module in model.named_modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if type(tensor).__name__ == "FlatParameter":
                    _refuse(path, name, "is sharded by FullyShardedDataParallel; use fully_shard (FSDP2)")
                if is_part(tensor) and (id(module), name) not in own:
                    _refuse(
                        path,
                        name,
                        "is a DTensor that no fully_shard inside it made: tensor parallelism, or a part of a "
                        "sharded model alone. Prune before it is parallelised, or give the whole model",
                    )


def check_reduced(model: nn.Module) -> None:
    """Raise `ValueError` if a sharded module holds gradients of this process alone, which would be lost."""
    for _, one in parameters_in_parts(model):
        gathered = getattr(one, "_unsharded_param", None)
        own = getattr(one, "unsharded_accumulated_grad", None), getattr(gathered, "grad", None)
        if any(gradient is not None for gradient in own):
            raise ValueError(
                "model: it holds gradients that were not reduced over the processes, as after a pass with "
                "set_requires_gradient_sync(False); prune it after the last pass of a step"
            )


def whole(tensor: Tensor) -> Tensor:
    """Return all of `tensor`, on the device of its parts; a plain one itself.

    It is collective for a DTensor.
    """
    if not is_part(tensor):
        return tensor.detach()
    _reserve(tensor)
    meet()
    return _gathered(tensor.detach())


def _reserve(part: Any) -> None:
    """Raise if this process has no memory for all of a DTensor, while no other waits for it to gather."""
    torch.empty(part.shape, dtype=part.dtype, device=part.device_mesh.device_type)


def _gathered(part: Any) -> Tensor:
    """Return all of a DTensor, in memory of its own where it has several parts."""
    local, mesh = part.to_local(), part.device_mesh
    if local.device.type != mesh.device_type:  # offloaded to the host, where its processes do not meet
        there = local.to(mesh.device_type)
        part = type(part).from_local(
            there, mesh, part.placements, run_check=False, shape=part.shape, stride=part.stride()
        )
    full: Tensor = part.full_tensor()
    return full.to(local.device)


def parted(full: Tensor, like: Tensor) -> Tensor:
    """Return `full` as `like` is: a DTensor of which this process keeps its part, or all of it."""
    if not is_part(like):
        return full
    spec: Any = like
    kind, mesh, placements = type(spec), spec.device_mesh, spec.placements
    from torch.distributed.tensor import Replicate

    there = kind.from_local(full.to(mesh.device_type), mesh, [Replicate()] * mesh.ndim, run_check=False)
    local = there.redistribute(mesh, placements).to_local().clone().to(full.device)
    parted: Tensor = kind.from_local(
        local, mesh, placements, run_check=False, shape=full.shape, stride=full.stride()
    )
    return parted


def local(tensor: Tensor) -> Tensor:
    """Return what this process holds of `tensor`, in the same memory."""
    here: Any = tensor.detach()
    mine: Tensor = here.to_local() if is_part(here) else here
    return mine


def refuse_sharded(model: nn.Module, what: str, name: str = "model") -> None:
    """Raise `ValueError` with the advice `what` if `model`, the argument `name`, is sharded."""
    if is_sharded(model):
        raise ValueError(f"{name}: expected a model that fully_shard has not sharded; {what}")


@dataclass(frozen=True)
class Piece:
    """What this process holds of a tensor of this shape: its part, or all of a plain one."""

    shape: tuple[int, ...]
    mesh: Any = None
    placements: tuple[Any, ...] = ()

    @classmethod
    def of(cls, tensor: Tensor) -> Piece:
        """Return the piece that this process has of `tensor`."""
        part: Any = tensor
        own = (part.device_mesh, part.placements) if is_part(tensor) else ()
        return cls(tuple(tensor.shape), *own)

    def ranges(self) -> dict[int, tuple[int, int]]:
        """Return {dimension: where the piece begins and ends} for the dimensions that were cut in parts."""
        found = {}
        for axis, placement in enumerate(self.placements):
            if placement.is_shard():
                size = self.shape[placement.dim]
                step = -(-size // self.mesh.size(axis))
                begin = min(size, step * self.mesh.get_coordinate()[axis])
                found[placement.dim] = begin, min(size, begin + step)
        return found

    def size(self) -> tuple[int, ...]:
        """Return the shape of the piece."""
        ends = self.ranges()
        return tuple(ends[k][1] - ends[k][0] if k in ends else n for k, n in enumerate(self.shape))

    def positions(self, where: Mapping[int, Ints]) -> dict[int, Ints]:
        """Return which of the positions `where` in the whole tensor are in the piece, as its own."""
        here = dict(where)
        for dim, (begin, end) in self.ranges().items():
            if dim in here:
                here[dim] = here[dim][(begin <= here[dim]) & (here[dim] < end)] - begin
        return here

    def joined(self, values: Tensor) -> Tensor:
        """Return the whole tensor of which every process has `values`; collective for one in parts."""
        if self.mesh is None:
            return values
        return whole(self.part(values.to(self.mesh.device_type))).to(values.device)

    def part(self, values: Tensor) -> Tensor:
        """Return the tensor of which every process has `values`: a DTensor with them, in their memory."""
        from torch.distributed.tensor import DTensor

        kind: Any = DTensor
        full = torch.empty(self.shape, device="meta")
        like = (
            kind.from_local(  # which would take values to the device of the mesh from that of offloaded ones
                values.to("meta"),
                self.mesh,
                self.placements,
                run_check=False,
                shape=full.shape,
                stride=full.stride(),
            )
        )
        part: Tensor = kind(values, like._spec, requires_grad=False)
        return part


def part_of(tensor: Tensor, where: Mapping[int, Ints]) -> tuple[Tensor, dict[int, Ints]]:
    """Return what this process holds of `tensor`, as :func:`local`, and which positions `where` are there."""
    return local(tensor), Piece.of(tensor).positions(where)


def plain_class(kind: Any) -> Any:
    """Return the class that modules of `kind` had before `fully_shard`."""
    mixin = _mixin()
    if mixin is None or not issubclass(kind, mixin):
        return kind
    return kind.__mro__[getattr(kind, "_orig_cls_mro_index", 2)]


def plain_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the `attributes` of a module without what `fully_shard` has put there."""
    names = " ".join(attributes)  # to look at each takes as long as all else that a copy does
    if _mixin() is None or not ("_fsdp_" in names or _STATES in names):
        return attributes
    kept = {name: value for name, value in attributes.items() if not (name in _MARKS or _is_fsdp(value))}
    for name, value in list(kept.items()):
        if name.startswith(_STATES):  # by function or its name, beside those of other functions
            kept[name] = type(value)((key, one) for key, one in value.items() if not _is_fully_shard(key))
            if not kept[name]:
                del kept[name]
        elif "_hooks" in name and isinstance(value, dict):
            hooks = attributes[name.partition("_hooks")[0] + "_hooks"]  # other tables say how they are called
            kept[name] = type(value)((key, one) for key, one in value.items() if not _is_fsdp(hooks[key]))
    return kept


_MARKS = frozenset(("_is_fsdp_managed_module", "_fsdp_use_orig_params"))
"""What `fully_shard` sets on every module that it manages."""
_STATES = "__composable_api"
"""How the names of the tables begin in which `fully_shard` and its like have their states."""


def _is_fully_shard(key: Any) -> bool:
    return bool(getattr(key, "__name__", key) == "fully_shard")


def _mixin() -> Any:
    known = sys.modules.get("torch.distributed.fsdp")
    return None if known is None else getattr(known, "FSDPModule", None)


def _is_sharded_module(module: nn.Module) -> bool:
    mixin = _mixin()
    return mixin is not None and isinstance(module, mixin)


def _sharded_names(module: Any) -> Iterator[tuple[int, str]]:
    """Yield (id of a module, name of its parameter) for all that `fully_shard(module)` has sharded."""
    for one in _parameters_of(module):
        info = one._module_info
        if not one.is_dtensor:  # else it was one before: of tensor parallelism
            yield id(info.module), info.param_name
            yield from zip(map(id, info.shared_modules), info.shared_param_names, strict=True)


def parameters_in_parts(model: nn.Module) -> Iterator[tuple[int, Any]]:
    """Yield (id of a parameter, what `fully_shard` keeps of it) for all of `model` that are sharded."""
    for module in sharded_modules(model):
        for one in _parameters_of(module):
            yield id(one.sharded_param), one


def _parameters_of(module: Any) -> Iterator[Any]:
    """Yield what `fully_shard(module)` keeps of each parameter that it has sharded."""
    state = module._get_fsdp_state()
    groups = getattr(state, "_fsdp_param_groups", None)  # torch 2.6 has one
    for group in [state._fsdp_param_group] if groups is None else groups:
        yield from () if group is None else group.fsdp_params


def _is_fsdp(value: Any) -> bool:
    """Return whether `value` is a function of PyTorch's FSDP, or a method of its objects."""
    value = getattr(value, "hook", value)
    owner = getattr(value, "__self__", None)
    function = getattr(value, "__func__", value)
    homes = (
        type(owner).__module__,
        getattr(function, "__module__", None),
        getattr(function, "__globals__", {}).get("__name__"),
    )
    return any(str(home).startswith("torch.distributed.fsdp") for home in homes)


def _refuse(path: str, name: str, why: str) -> None:
    raise TypeError(f"model: {f'{path}.{name}' if path else name} {why}")
