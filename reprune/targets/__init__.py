"""Step 1 on a whole model: from a target and bounds to counts, how many atoms each group keeps."""

from .bounds import MinKeep, check_bounds, without_ignored
from .counts import check_reach, counts_of, in_scope, ranked
from .given import given
from .landing import landing_notes
from .target import Target, choice, target_of

__all__ = [
    "MinKeep",
    "Target",
    "check_bounds",
    "check_reach",
    "choice",
    "counts_of",
    "given",
    "in_scope",
    "landing_notes",
    "ranked",
    "target_of",
    "without_ignored",
]
