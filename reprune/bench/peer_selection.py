"""Build the selection from scipy or fastcluster, fcluster and numpy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..clustering import reference
from ..clustering.problem import LayerProblem, Selection
from . import checking, peers
from .checking import OURS, WrongAnswer
from .timing import NONE, Seconds, clocked

LEAST, MOST = 2, 32  # channels per shape that the peers cluster


@dataclass(frozen=True)
class _Shape:
    """One shape of layer, represented by its first layer."""

    times: int  # layers of this shape
    points: list[npt.NDArray[np.float64]]  # of the sampled channels
    trees: list[peers.Tree]  # their dendrograms
    scale: float  # all channels / sampled
    height: float
    labels: npt.NDArray[Any]
    picks: int
    rest: float  # all picks / those timed
    key: int


class PeerSelection:
    """Times the peers on a sample of channels and picks of every shape and scales up to the whole.

    All linkages share the flat clusters and the coverage; of fastcluster's two, the faster one counts, shape
    by shape. Raises WrongAnswer if a peer's clusters or picks are not the ones that were checked.
    """

    def __init__(self, problems: Sequence[LayerProblem], answer: Sequence[Selection], seconds: float) -> None:
        """Prepare the samples so that a round takes about `seconds`."""
        self._links = {who: link for who, link in peers.linkages("ward").items() if who != "scikit-learn"}
        self._shapes: list[_Shape] = []
        kinds: dict[tuple[int, ...], list[int]] = {}
        for number, problem in enumerate(problems):
            kinds.setdefault(problem.tables[0].shape, []).append(number)
        self._sampled = 0
        for numbers in kinds.values():
            first = numbers[0]
            shape = self._shape(problems[first], answer[first], len(numbers), seconds / len(kinds))
            self._shapes.append(shape)
            self._sampled += len(shape.points)
        self.part = f"{self._sampled}/{sum(len(p.tables[0]) for p in problems)}"

    def _shape(self, problem: LayerProblem, found: Selection, times: int, seconds: float) -> _Shape:
        (table,) = problem.tables
        I, O = table.shape[:2]
        link = self._links["scipy"]
        one = clocked(lambda: link(table[0].astype(np.float64))).wall
        size = int(min(I, MOST, max(LEAST, seconds / (one * 3))))
        channels = np.linspace(0, I - 1, size).astype(int)
        points = [table[j].astype(np.float64) for j in channels]
        trees = [link(p) for p in points]
        height = found.height * (1 + OURS)
        for who, other in self._links.items():
            for j, p in zip(channels, points, strict=True):
                flat = checking.first_appearance(peers.flat(other(p), height))
                if not np.array_equal(flat, checking.first_appearance(found.labels[:, j])):
                    raise WrongAnswer(f"layer {problem.name}, channel {j}: other clusters by {who}")
        labels, key = np.ascontiguousarray(found.labels), reference.tie_key(0, problem.name)
        few = min(problem.keep, 4)
        pick = clocked(lambda: peers.numpy_coverage(labels, few, key)).wall / few
        few = int(min(problem.keep, max(few, seconds / (4 * pick))))
        if not np.array_equal(peers.numpy_coverage(labels, few, key), found.order[:few]):
            raise WrongAnswer(f"layer {problem.name}: numpy picks other filters")
        rest = peers.coverage_scale(O, problem.keep, few)
        return _Shape(times, points, trees, I / size, height, labels, few, rest, key)

    def turn(self) -> Mapping[str, Seconds]:
        """Time one round over all shapes; return the scaled time of the whole by library."""
        total: dict[str, Seconds] = {}
        for shape in self._shapes:
            for library, took in self._time(shape).items():
                total[library] = total.get(library, NONE) + took * shape.times
        return total

    def _time(self, shape: _Shape) -> dict[str, Seconds]:
        """Return the time of one layer by library."""
        best: dict[str, Seconds] = {}
        for who, link in self._links.items():
            took = clocked(lambda link=link: [link(p) for p in shape.points]) * shape.scale  # type: ignore[misc]
            library = who.partition(",")[0]
            best[library] = min(took, best.get(library, took), key=lambda seconds: seconds.cpu)
        cut = clocked(lambda: [peers.flat(tree, shape.height) for tree in shape.trees]) * shape.scale
        cover = clocked(lambda: peers.numpy_coverage(shape.labels, shape.picks, shape.key)) * shape.rest
        return {library: took + cut + cover for library, took in best.items()}
