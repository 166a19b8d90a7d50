"""Step 1 on a whole model: from a target and bounds to counts, how many atoms each group keeps."""

from .bounds import MinKeep, check_bounds, without_ignored
from .budget import Counts
from .counts import counts_of, in_scope, ranked
from .given import given
from .target import Target, choice, target_of

__all__ = [
    "Counts",
    "MinKeep",
    "Target",
    "check_bounds",
    "choice",
    "counts_of",
    "given",
    "in_scope",
    "ranked",
    "target_of",
    "without_ignored",
]
