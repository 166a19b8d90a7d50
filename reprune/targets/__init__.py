"""Compute from a target and bounds how many atoms each group of a model keeps (step 1)."""

from .bounds import MinKeep, without_ignored
from .counts import check_reach, counts_of, in_scope, rankable
from .given import counts_from_keep
from .landing import landing_notes
from .settings import Select, Settings, checked
from .target import Target, require_choice

__all__ = [
    "MinKeep",
    "Select",
    "Settings",
    "Target",
    "check_reach",
    "checked",
    "counts_from_keep",
    "counts_of",
    "in_scope",
    "landing_notes",
    "rankable",
    "require_choice",
    "without_ignored",
]
