"""Files of trainings that go on where they were interrupted."""

from .files import load_training, save_training

__all__ = ["load_training", "save_training"]
