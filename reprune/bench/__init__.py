"""Measures the backends against each other and against the peers that are installed; right answers only."""

from .checking import WrongAnswer
from .report import Report, Row
from .run import DEVICES, GROUPS, Settings, run

__all__ = ["DEVICES", "GROUPS", "Report", "Row", "Settings", "WrongAnswer", "run"]
