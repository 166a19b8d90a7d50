"""Make plans.

=========== ==============================================================================
`make.py`   the public functions: `make_plan` changes nothing, `prune` applies it to a copy
`decide.py` from settings and a traced model to a plan: counts, selection, certificate
=========== ==============================================================================
"""

from .decide import plan_of_atoms
from .make import make_plan, prune

__all__ = ["make_plan", "plan_of_atoms", "prune"]
