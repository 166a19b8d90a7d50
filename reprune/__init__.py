"""Channel pruning by kernel clustering (REPrune), on an exact, batched clustering core."""

from importlib.metadata import version

from .backend import BackendUnavailable
from .coverage import max_coverage
from .cut import cut
from .linkage import linkage
from .selection import Selection, select_filters
from .sparsity import keep_counts

__version__ = version("reprune")

__all__ = [
    "BackendUnavailable",
    "Selection",
    "cut",
    "keep_counts",
    "linkage",
    "max_coverage",
    "select_filters",
]
