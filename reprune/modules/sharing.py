"""Find which tensors of a model share memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor


def check_apart(tensors: Mapping[str, Tensor], names: Collection[str], what: str) -> None:
    """Raise `ValueError` if one of `tensors` in `names` shares memory with a different tensor.

    `what`, the action that is about to happen, would separate them. Tensors that are one object under several
    names are tied, which is allowed, as are different parts of one storage.
    """
    storages: dict[int, dict[int, str]] = {}
    for name, tensor in tensors.items():
        if tensor.layout == torch.strided and tensor.numel() and type(tensor).__torch_dispatch__ is _PLAIN:
            storages.setdefault(tensor.untyped_storage()._cdata, {}).setdefault(id(tensor), name)
    for same in storages.values():
        taken: dict[str, Tensor] = {}
        for name in same.values() if len(same) > 1 else ():
            mine = _bytes_of(tensors[name])
            for other, theirs in taken.items():
                if {name, other} & set(names) and bool((mine & theirs).any()):
                    raise ValueError(
                        f"model: {other} and {name} share memory without being one tensor, and {what} would "
                        "separate them; register one tensor under both names, or give each its own (.clone())"
                    )
            taken[name] = mine


_PLAIN = Tensor.__torch_dispatch__


def _bytes_of(tensor: Tensor) -> Tensor:
    """Return which bytes of its storage `tensor` occupies, [bytes] bool."""
    width = tensor.element_size()
    taken = torch.zeros(tensor.untyped_storage().nbytes(), dtype=torch.bool)
    strides = (*(step * width for step in tensor.stride()), 1)
    taken.as_strided((*tensor.shape, width), strides, tensor.storage_offset() * width).fill_(True)
    return taken
