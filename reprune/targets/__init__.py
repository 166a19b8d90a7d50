"""Step 1 on a whole model: from a target and bounds to counts, how many atoms each group keeps."""

from .bounds import MinKeep, without_ignored
from .counts import check_reach, counts_of, in_scope, ranked
from .given import given
from .landing import landing_notes
from .settings import Select, Settings, checked
from .target import Target, choice

__all__ = [
    "MinKeep",
    "Select",
    "Settings",
    "Target",
    "check_reach",
    "checked",
    "choice",
    "counts_of",
    "given",
    "in_scope",
    "landing_notes",
    "ranked",
    "without_ignored",
]
