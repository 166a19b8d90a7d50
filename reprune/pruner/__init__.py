"""Pruning while training: a few lines in anyone's loop."""

from .history import Event, History
from .pruner import Pruner

__all__ = ["Event", "History", "Pruner"]
