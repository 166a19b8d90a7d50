"""Read and write files of pruned models and of trainings, atomically and with checks."""

from .model import load, read_plan, save
from .training import load_training, save_training

__all__ = ["load", "load_training", "read_plan", "save", "save_training"]
