"""Prune channels by kernel clustering (REPrune), on an exact, batched clustering library."""

from .clustering.backends import BackendUnavailable, installed_version

__version__ = installed_version()  # where none is installed, that is said before torch is loaded

from .clustering.coverage import max_coverage
from .clustering.cut import cut
from .clustering.linkage import linkage
from .clustering.problem import Selection
from .clustering.selection import select_filters
from .clustering.sparsity import keep_counts
from .files import load_training, save_training
from .files.model import load, read_plan, save
from .graph import ModelTrace, trace
from .plan import PruningPlan
from .planner import make_plan, prune
from .pruner import Pruner
from .surgery import apply

__all__ = [
    "BackendUnavailable",
    "ModelTrace",
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
    "trace",
]
