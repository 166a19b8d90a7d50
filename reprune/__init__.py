"""Prune channels by kernel clustering (REPrune), on an exact, batched clustering library.

A module is loaded when one of its names is first used: who only clusters arrays never waits for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .clustering.backends import BackendUnavailable, installed_version

if TYPE_CHECKING:  # what _HOME says, for type checkers and the site
    from . import fsdp as fsdp
    from . import graph as graph
    from .clustering.coverage import max_coverage
    from .clustering.cut import cut
    from .clustering.linkage import linkage
    from .clustering.pairwise import pairwise
    from .clustering.problem import Selection
    from .clustering.selection import select_filters
    from .clustering.sparsity import keep_counts
    from .compensation.compensate import compensate
    from .files.model import load, read_plan, save
    from .files.training import load_training, save_training
    from .graph import ModelTrace, trace
    from .plan import PruningPlan
    from .planner import make_plan, prune
    from .pruner import Pruner
    from .surgery import apply

__version__ = installed_version()

_HOME = {
    "ModelTrace": ".graph",
    "Pruner": ".pruner",
    "PruningPlan": ".plan",
    "Selection": ".clustering.problem",
    "apply": ".surgery",
    "compensate": ".compensation.compensate",
    "cut": ".clustering.cut",
    "keep_counts": ".clustering.sparsity",
    "linkage": ".clustering.linkage",
    "load": ".files.model",
    "load_training": ".files.training",
    "make_plan": ".planner",
    "max_coverage": ".clustering.coverage",
    "pairwise": ".clustering.pairwise",
    "prune": ".planner",
    "read_plan": ".files.model",
    "save": ".files.model",
    "save_training": ".files.training",
    "select_filters": ".clustering.selection",
    "trace": ".graph",
}
_MODULES = {
    "files",
    "fsdp",
    "graph",
    "plan",
    "pruner",
}  # reached without an import of their own

__all__ = [
    "BackendUnavailable",
    "ModelTrace",
    "Pruner",
    "PruningPlan",
    "Selection",
    "apply",
    "compensate",
    "cut",
    "keep_counts",
    "linkage",
    "load",
    "load_training",
    "make_plan",
    "max_coverage",
    "pairwise",
    "prune",
    "read_plan",
    "save",
    "save_training",
    "select_filters",
    "trace",
]


if not TYPE_CHECKING:  # a type checker that saw __getattr__ would accept any name

    def __getattr__(name: str) -> object:
        if name in _MODULES:
            return import_module(f".{name}", __name__)  # which sets the attribute
        if name not in _HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOME[name], __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})
