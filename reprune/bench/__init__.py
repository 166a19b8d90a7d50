"""Measures the backends against each other and against the peers that are installed; right answers only."""

from .checking import WrongAnswer
from .report import Report, Row
from .run import GROUPS, Settings, run

__all__ = ["GROUPS", "Report", "Row", "Settings", "WrongAnswer", "run"]
