"""Define what a selection takes and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class Selection:
    """The filters kept in one layer, and how they were selected.

    Arrays are numpy, or torch on the device of the weight if that was a tensor. A layer that keeps all its
    filters is not
    clustered: every kernel is a cluster of its own and the height is minus infinity.
    """

    keep: Any
    """int64 [keep]: the filters to keep, ascending."""
    order: Any
    """int64 [keep]: the same in the order they were picked."""
    gains: Any
    """int64 [keep]: clusters that each pick covered newly."""
    heights: tuple[float, ...]
    """Cut height of every table of kernels; a layer has one, a group of layers that is selected as one has
    one each."""
    labels: Any
    """int32 [O, I]: cluster of kernel (i, j) within input channel j, numbered from 0 by first appearance."""
    clusters: Any
    """int32 [I]: number of clusters of every input channel."""

    @property
    def height(self) -> float:
        """The cut height of a layer with one table of kernels."""
        if len(self.heights) != 1:
            raise ValueError(f"height: this selection has {len(self.heights)} tables of kernels; see heights")
        return self.heights[0]

    @property
    def coverage(self) -> float:
        """Covered clusters / all clusters, from 0 to 1."""
        return float(self.gains.sum()) / float(self.clusters.sum())

    def __repr__(self) -> str:
        O, I = self.labels.shape
        return f"Selection(keep {len(self.keep)} of {O} filters, {I} channels, coverage {self.coverage:.3f})"


@dataclass(frozen=True)
class LayerProblem:
    """A group of coupled channels, selected as one.

    The label matrices of the layers that produce it are concatenated along channels.
    """

    name: str
    """Part of the hash that breaks ties."""
    tables: tuple[Any, ...]
    """Each [I, O, d], float32 or float64, finite, any strides: I clustering problems of O points; O is
    common. Arrays of numpy, or tensors for the backend "triton"."""
    keep: int
    """Filters to keep, 1 <= keep <= O."""
