"""Hold the two networks, what to run them on, and what is known beforehand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..modules.slicing import Slices
from .images import Images
from .layer import FOLDS
from .paused import Inputs
from .sequence import Event, Sequence

MEMORY = 2**30
"""Bytes for the activations of all images between two operations."""


@dataclass(frozen=True, eq=False)
class Pair:
    """The dense and the small network."""

    dense: nn.Module
    small: nn.Module
    slices: Slices
    images: Images
    device: torch.device
    dtype: torch.dtype | None
    """That of the images, if they are floating point."""
    sequences: tuple[Sequence, Sequence]
    """The operations of the dense and of the small network: of the same tensors, in the same order."""
    probed: int
    """Images that these were found with."""

    def inputs(self, start: int, stop: int) -> Inputs:
        """Return the arguments of a network for some images."""
        return self.images.inputs(start, stop, self.device, self.dtype)

    @property
    def events(self) -> list[Event]:
        """The operations of the small network."""
        return self.sequences[1].events

    def lost(self) -> list[bool]:
        """Return for each operation whether its layer lost inputs."""
        dense, small = (sequence.events for sequence in self.sequences)
        return [d.inputs > s.inputs for d, s in zip(dense, small, strict=True)]

    def capacities(self) -> list[int]:
        """Return how many images fit into `MEMORY` from each operation on; a few of them always do."""
        needed, found = 1.0, []
        dense, small = (reversed(sequence.events) for sequence in self.sequences)
        for d, s in zip(dense, small, strict=True):
            alive = d.bytes + s.bytes + 2 * (d.output + s.output)  # what lacks, and its copies
            needed = max(needed, alive / self.probed)
            found.append(max(2 * FOLDS, int(MEMORY / needed)))
        return found[::-1]
