"""Measure the backends against each other and against installed peers, and check every answer."""

from .checking import WrongAnswer
from .report import Report, Row
from .run import DEVICES, GROUPS, Settings, run

__all__ = ["DEVICES", "GROUPS", "Report", "Row", "Settings", "WrongAnswer", "run"]
