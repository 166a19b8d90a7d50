"""Call the other libraries that are installed, and a plain numpy coverage."""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from ..clustering import reference

Points = npt.NDArray[np.float64]  # [n, d]
Tree = npt.NDArray[np.float64]  # [n-1, 4]
Linkage = Callable[[Points], Tree]

MODULES = {"scipy": "scipy", "fastcluster": "fastcluster", "scikit-learn": "sklearn"}


def installed(library: str) -> bool:
    """Return whether a library can be imported, by its name in the package index."""
    return find_spec(MODULES[library]) is not None


def linkages(method: str) -> dict[str, Linkage]:
    """Return every installed function that computes a dendrogram, by its name in tables."""
    found: dict[str, Linkage] = {}
    if installed("scipy"):
        hierarchy = import_module("scipy.cluster.hierarchy")
        found["scipy"] = lambda points: hierarchy.linkage(points, method)
    if installed("fastcluster"):
        fastcluster = import_module("fastcluster")
        found["fastcluster"] = lambda points: fastcluster.linkage(points, method)
        if method in ("ward", "single"):
            found["fastcluster, vector"] = lambda points: fastcluster.linkage_vector(points, method)
    if installed("scikit-learn"):
        found["scikit-learn"] = _scikit_learn(method)
    return found


def _scikit_learn(method: str) -> Linkage:
    """Return scikit-learn's linkage; its trees have children and heights but no cluster sizes."""
    cluster = import_module("sklearn.cluster")

    def link(points: Points) -> Tree:
        if method == "ward":
            answer = cluster.ward_tree(points, return_distance=True)
        else:
            answer = cluster.linkage_tree(points, linkage=method, return_distance=True)
        children, heights = answer[0], answer[-1]
        return np.column_stack([children, heights, np.zeros(len(heights))])

    return link


def oracle(method: str) -> tuple[str, Linkage]:
    """Return the linkage that is taken for right: scipy's, or without scipy the reference's."""
    if installed("scipy"):
        return "scipy", linkages(method)["scipy"]
    return "reference", lambda points: reference.linkage(points, method)


def flat(tree: Tree, height: float) -> npt.NDArray[Any]:
    """Return scipy's labels at a height, merges at that height included."""
    labels: npt.NDArray[Any] = import_module("scipy.cluster.hierarchy").fcluster(tree, height, "distance")
    return labels


def numpy_coverage(labels: npt.NDArray[Any], picks: int, key: int) -> npt.NDArray[np.int64]:
    """Return the first `picks` filters: all gains by one gather per pick, ties by the same hash."""
    O = len(labels)
    start = np.concatenate([[0], np.cumsum(labels.max(axis=0) + 1)])
    cluster = labels + start[:-1]  # [O, I], numbered across channels
    uncovered, left = np.ones(start[-1], dtype=bool), np.arange(O)
    order = np.empty(picks, np.int64)
    for step in range(picks):
        gain = uncovered[cluster[left]].sum(axis=1)
        tied = left[gain == gain.max()]
        order[step] = tied[reference.tie_values(key, step, tied).argmin()]
        uncovered[cluster[order[step]]] = False
        left = left[left != order[step]]
    return order


def coverage_scale(O: int, keep: int, picks: int) -> float:
    """Return time of `keep` picks / time of the first `picks`: a pick gathers the rows that are left."""
    return float(sum(O - s for s in range(keep)) / sum(O - s for s in range(picks)))
