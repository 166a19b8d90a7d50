"""Channel pruning by kernel clustering (REPrune), on an exact, batched clustering core."""

from importlib.metadata import version

__version__ = version("reprune")
