"""List what a file of a model holds: its own tensors, tied ones once."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..modules.sharded import is_part
from ..modules.sharing import check_apart
from ..modules.slicing import named_tensors
from ..modules.wrappers import plain_names, unwrap


def contents(model: nn.Module, with_values: bool = True) -> dict[str, Tensor]:
    """Return the state of the network inside all wrappers, by plain names; tied tensors appear once.

    Without `with_values` they may be on the device "meta".

    Raises a `ValueError` that names what in the state cannot be written or restored.
    """
    model = unwrap(model)[0]
    plain = plain_names(model)
    own = {id(tensor) for tensor in named_tensors(model).values()}
    first: dict[int, str] = {}
    found: dict[str, Tensor] = {}
    for raw, value in model.state_dict(keep_vars=True).items():
        name = plain(raw)
        if not isinstance(value, Tensor):
            raise ValueError(
                f"model: its state {name!r} is a {type(value).__name__}; only tensors can be saved"
            )
        if id(value) not in own:
            raise ValueError(
                f"model: its state {name!r} is neither a parameter nor a buffer, but made by "
                "get_extra_state() or a hook, so it could not be put back; register it as a buffer"
            )
        if first.setdefault(id(value), name) == name:
            found[name] = value
    _check_kinds(found, with_values)
    check_apart(found, found.keys(), "a file")
    return found


def _check_kinds(tensors: Mapping[str, Tensor], with_values: bool) -> None:
    for name, tensor in tensors.items():
        if is_lazy(tensor):
            raise ValueError(f"model: {name} is not initialised yet; run the model once")
        if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__ and not is_part(tensor):
            raise ValueError(
                f"model: {name} is a {type(tensor).__name__}; only plain tensors can be in a file"
            )
        if with_values and tensor.is_meta:
            raise ValueError(f"model: {name} is on the device 'meta' and has no values; build it on another")
