"""Read what is given as images into one set of known size."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from ..arguments import shown
from ..modules.rng import generators_kept
from .paused import Inputs

MOST = 2048
"""Images that are used at most; what comes after them is not read."""
BYTES = 2**29
"""Of the images together; beyond that no more are read."""
_EXPECTED = "a tensor [N, ...] or an iterable of batches, as a DataLoader gives them"


class Images:
    """Arguments of a network for `count` images, whatever the batches in which they came."""

    def __init__(self, leaves: list[Any], structure: Any, count: int, name: str) -> None:
        self.count = count
        self.name = name
        """The user's name of the argument."""
        self._leaves, self._structure = leaves, structure

    def inputs(self, start: int, stop: int, device: torch.device, dtype: torch.dtype | None) -> Inputs:
        """Return copies of the arguments for the images from `start` to `stop`, for the network to change."""
        leaves = [
            self._part(leaf, start, stop, device, dtype) if isinstance(leaf, Tensor) else leaf
            for leaf in self._leaves
        ]
        inputs: Inputs = tree_unflatten(leaves, self._structure)
        return inputs

    def shown(self) -> str:
        """Return the shapes and types of what a network is given, for people."""
        tensors = [leaf for leaf in self._leaves if isinstance(leaf, Tensor)]
        sizes = [", ".join(["N", *map(str, x.shape[1:])]) for x in tensors]
        kinds = [str(x.dtype).removeprefix("torch.") for x in tensors]
        return " and ".join(f"{kind} [{size}]" for kind, size in zip(kinds, sizes, strict=True))

    @staticmethod
    def _part(leaf: Tensor, start: int, stop: int, device: torch.device, dtype: torch.dtype | None) -> Tensor:
        kind = dtype if dtype is not None and leaf.is_floating_point() else leaf.dtype
        return leaf[start:stop].to(device=device, dtype=kind, copy=True)


def collected(images: Any, model: nn.Module, name: str = "images") -> Images:
    """Return the images of a tensor or of an iterable of batches; at most `MOST`, or `BYTES` of them.

    Random numbers that are drawn while they are read leave the generators as they were.

    Raises `ValueError` if there are fewer than two, of different sizes, or with NaN; `TypeError` if it is
    something else.
    """
    if isinstance(images, Images):
        return images
    with generators_kept():
        return _collected(images, model, name)


def _collected(images: Any, model: nn.Module, name: str) -> Images:
    batches: list[list[Any]] = []
    structure, count, size = None, 0, 0
    for batch in _batches(images, name):
        leaves, found = tree_flatten(_arguments(batch, model, name))
        if structure is not None and found != structure:
            raise ValueError(
                f"{name}: expected batches of one kind; batch {len(batches)} is another than the first"
            )
        structure = found
        count += _length(leaves, name, len(batches))
        size += sum(x.numel() * x.element_size() for x in leaves if isinstance(x, Tensor))
        batches.append(leaves)
        if count >= MOST or size >= BYTES:
            break
    if count < 2:
        empty = "; an iterator that was read before is empty" if count == 0 else ""
        raise ValueError(f"{name}: expected at least two images, better 256; got {count}{empty}")
    leaves = [_joined(parts, name) for parts in zip(*batches, strict=True)]
    fitting = max(2, min(count, MOST, count * BYTES // max(size, 1)))
    return Images(leaves, structure, fitting, name)


def _batches(images: Any, name: str) -> Iterator[Any]:
    if isinstance(images, (Tensor, Mapping)):
        yield images
    elif isinstance(images, Iterable) and not isinstance(images, (str, bytes)):
        yield from images
    else:
        raise TypeError(f"{name}: expected {_EXPECTED}; got {shown(images)}")


def _arguments(batch: Any, model: nn.Module, name: str) -> Inputs:
    """Return the arguments of the model that a batch holds, without labels."""
    if isinstance(batch, list):  # as a DataLoader makes of samples: the input, then labels
        batch = batch[0] if batch else None
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, tuple):
        return batch[: _positional(model)], {}
    raise TypeError(f"{name}: expected {_EXPECTED}; got a batch {shown(batch)}")


def _positional(model: nn.Module) -> int:
    """Return how many positional arguments the model takes; what a batch has beyond them are labels."""
    kinds = [parameter.kind for parameter in inspect.signature(model.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        return 1_000
    return sum(
        kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds
    )


def _length(leaves: list[Any], name: str, index: int) -> int:
    """Return the number of images of a batch."""
    tensors = [x for x in leaves if isinstance(x, Tensor)]
    for x in tensors:
        if x.layout is not torch.strided or x.is_nested or x.is_meta:
            kind = "nested" if x.is_nested else "on the device 'meta'" if x.is_meta else str(x.layout)
            raise ValueError(f"{name}: expected ordinary tensors; one in batch {index} is {kind}")
    lengths = {x.shape[0] if x.dim() else None for x in tensors}
    length = lengths.pop() if len(lengths) == 1 else None
    if length is None:
        shapes = ", ".join(str(tuple(x.shape)) for x in tensors) or "no tensor"
        raise ValueError(
            f"{name}: expected tensors whose first dimension is the batch; batch {index} has {shapes}"
        )
    for x in tensors:
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise ValueError(f"{name}: expected finite values; batch {index} has NaN or infinity")
    return length


def _joined(parts: tuple[Any, ...], name: str) -> Any:
    if not isinstance(parts[0], Tensor):
        return parts[0]
    shapes = {tuple(part.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"{name}: expected images of one size; got {' and '.join(map(str, sorted(shapes)[:3]))}"
        )
    return torch.cat([part.detach() for part in parts]) if len(parts) > 1 else parts[0].detach()
