"""Provide `AgglomerativeClustering` for scikit-learn (`pip install "reprune[sklearn]"`)."""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    from sklearn import cluster
    from sklearn.cluster._agglomerative import _hc_cut
    from sklearn.utils.validation import check_memory
except ImportError as error:
    raise ImportError('reprune.sklearn needs scikit-learn: pip install "reprune[sklearn]"') from error

from . import hierarchy

__all__ = ["AgglomerativeClustering"]

_METHODS = ("ward", "complete", "average")


class AgglomerativeClustering(cluster.AgglomerativeClustering):  # type: ignore[misc]
    """`sklearn.cluster.AgglomerativeClustering` with a faster tree.

    It has the same parameters, attributes, errors and results.

    The C++ core builds the tree for `linkage` "ward", "complete" and "average" with `metric="euclidean"` and
    no connectivity. Everything else is left to scikit-learn: connectivity, other metrics, precomputed
    distances, callables, and `linkage="single"`, where the order within a row of `children_` depends on how
    scikit-learn walks through the minimum spanning tree. So are trees in which rounding decides, and
    thresholds that close to a height (see :mod:`reprune.hierarchy`).
    """

    def _fit(self, X: Any) -> AgglomerativeClustering:
        """Fit after scikit-learn's `fit` has checked the parameters and `X [n, d]`, each by itself."""
        if not self._is_ours():
            super()._fit(X)
            return self
        Z = check_memory(self.memory).cache(_tree)(X, self.linkage)
        threshold = self.distance_threshold
        # one that equals a height of our own tree was read from it
        if threshold is not None and hierarchy.near(Z[Z[:, 2] != threshold, 2], threshold):
            super()._fit(X)  # by scikit-learn's heights, to the last bit
            return self
        self.children_ = Z[:, :2].astype(np.intp)
        self.n_connected_components_ = 1
        self.n_leaves_ = len(X)
        if self.distance_threshold is not None or self.compute_distances:
            self.distances_ = Z[:, 2]
        if self.distance_threshold is not None:
            self.n_clusters_ = np.count_nonzero(Z[:, 2] >= self.distance_threshold) + 1
        else:
            self.n_clusters_ = self.n_clusters
        self.labels_ = _hc_cut(self.n_clusters_, self.children_, self.n_leaves_)
        return self

    def _is_ours(self) -> bool:
        return (
            self.linkage in _METHODS
            and isinstance(self.metric, str)
            and self.metric == "euclidean"
            and self.connectivity is None
            # combinations that are errors: scikit-learn says so
            and (self.n_clusters is None) != (self.distance_threshold is None)
            and (self.distance_threshold is None or bool(self.compute_full_tree))
        )


def _tree(X: Any, method: str) -> hierarchy.Result:
    return hierarchy.linkage(X, method)
