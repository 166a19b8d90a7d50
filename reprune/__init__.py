"""Channel pruning by kernel clustering (REPrune), on an exact, batched clustering core."""

from .backend import BackendUnavailable, installed_version
from .checkpoint import load, read_plan, save
from .coverage import max_coverage
from .cut import cut
from .linkage import linkage
from .plan import PruningPlan
from .planner import make_plan
from .pruner import Pruner
from .selection import Selection, select_filters
from .sparsity import keep_counts
from .surgery import apply, prune
from .training import load_training, save_training

__version__ = installed_version()

__all__ = [
    "BackendUnavailable",
    "Pruner",
    "PruningPlan",
    "Selection",
    "apply",
    "cut",
    "keep_counts",
    "linkage",
    "load",
    "load_training",
    "make_plan",
    "max_coverage",
    "prune",
    "read_plan",
    "save",
    "save_training",
    "select_filters",
]
