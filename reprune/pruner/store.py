"""Store the most recently used value of every channel, at full size, in host memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from ..modules.slicing import Positions, slice_tensor, write

Layout = Mapping[str, Positions]
"""{tensor: {dimension: positions that are present}}."""


class Store:
    """Full-size values of sliced tensors, by key such as "model/conv.weight"."""

    def __init__(self) -> None:
        self.full: dict[str, Tensor] = {}

    def absorb(self, key: str, live: Tensor, size: Sequence[int], where: Positions) -> None:
        """Store `live`, which holds the positions `where` of a tensor of `size`."""
        part = live.detach().to("cpu")
        if key not in self.full:
            like = part if part.shape == tuple(size) else part.new_zeros(tuple(size))
            self.full[key] = torch.zeros_like(like)  # in its memory format
        write(self.full[key], where, part)

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Replace the content by `saved`, in the memory format of what was there."""
        was, self.full = self.full, {}
        for key, tensor in saved.items():
            fits = key in was and was[key].shape == tensor.shape
            self.full[key] = torch.empty_like(was[key]).copy_(tensor) if fits else tensor.clone()

    def drop(self, what: Callable[[str], bool]) -> None:
        """Drop the values of the keys for which `what` is true."""
        self.full = {key: tensor for key, tensor in self.full.items() if not what(key)}

    def take(self, key: str, where: Positions, device: torch.device) -> Tensor:
        """Return the positions `where` as a new tensor on `device`."""
        return slice_tensor(self.full[key], where).to(device).clone(memory_format=torch.preserve_format)
