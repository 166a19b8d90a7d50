"""Hold what the demo measured."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..pruner import History


@dataclass(frozen=True)
class Side:
    """Measurements of one of the two networks."""

    accuracy: float  # share of the 1,000 test images, 0..1
    epochs: int  # passes over the training images so far
    images: int  # to train
    training_seconds: float  # events included
    flops: int  # of one image
    parameters: int
    file_bytes: int
    latency: dict[int, float]  # batch size -> seconds of a forward pass, median


@dataclass(frozen=True)
class OneShot:
    """Measurements of the dense network, pruned once and compensated, without training."""

    flops: int  # of one image
    images: int  # that it was compensated on
    seconds: float  # of that
    accuracy_before: float  # pruned, and nothing else
    accuracy: float


@dataclass(frozen=True)
class Report:
    """Measurements of dense and pruned network, and where the files are."""

    dense: Side
    small: Side
    one_shot: OneShot
    history: History  # the events of the training
    same_after_reload: bool  # the file, loaded into a fresh network, gives the same outputs to the last bit
    seconds: float
    files: dict[str, Path]  # what it is -> where it is
    doubtful: tuple[int, ...] = ()  # batch sizes whose latency is not to be trusted
    notes: tuple[str, ...] = ()  # how far figures are to be trusted, and what was left out

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        plain = asdict(self) | {"history": self.history.to_list()}
        return plain | {"files": {what: str(path) for what, path in self.files.items()}}
