"""Prune while training, with a few lines in the user's loop."""

from .history import Event, History
from .pruner import Pruner

__all__ = ["Event", "History", "Pruner"]
