"""Implement the stages in plain numpy and float64: slow and simple, the oracle of every other backend.

Nothing here checks its arguments; the public functions of :mod:`reprune` do.
"""

from .coverage import max_coverage
from .cut import cut
from .linkage import METHODS, linkage, pairwise
from .selection import select_layer
from .ties import tie_key, tie_values

__all__ = ["METHODS", "cut", "linkage", "max_coverage", "pairwise", "select_layer", "tie_key", "tie_values"]
