"""Report what became of each layer."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class CompensatedLayer:
    """What became of one layer."""

    name: str
    inputs: tuple[int, int] = (0, 0)
    """Input channels before and after pruning, of each group; zeros if they are not known."""
    images: int = 0
    rows: int = 0
    """Output positions that it was fitted to."""
    ridge: float | None = None
    """In units of the mean variance of its inputs; infinite if only the mean was put right."""
    before: float = math.nan
    """Squared error on images that were left out, as a part of the variance of the outputs."""
    after: float = math.nan
    """The same with the new weight."""
    reason: str = ""
    """Why it was left as it is; "" if it was fitted."""


@dataclass(frozen=True)
class CompensationReport:
    """What :func:`reprune.compensate` did; `print(report)` shows a row per layer."""

    layers: tuple[CompensatedLayer, ...]
    """In the order in which the network runs them, from the first one that lost inputs on."""
    images: int
    """Images that were used."""
    seconds: float
    norms: int = 0
    """BatchNorms whose mean was put right."""
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        width = max((len(layer.name) for layer in self.layers), default=5)
        lines = [f"{'layer':<{width}}      inputs  images     rows   ridge  error before    after"]
        for layer in self.layers:
            kept = f"{layer.inputs[1]}/{layer.inputs[0]}" if layer.inputs[0] else ""
            line = f"{layer.name:<{width}}  {kept:>10}"
            if layer.rows:
                ridge = (
                    "" if layer.ridge is None else "mean" if math.isinf(layer.ridge) else f"{layer.ridge:g}"
                )
                line += f"  {layer.images:6d}  {layer.rows:7d}  {ridge:>6}"
                line += f"  {100 * layer.before:10.3f} %  {100 * layer.after:5.3f} %"
            lines.append(f"{line}  {layer.reason}".rstrip())
        fitted = sum(not layer.reason for layer in self.layers)
        lines.append(
            f"{fitted} of {len(self.layers)} layers fitted and {self.norms} means of BatchNorms put right on "
            f"{self.images} images in {self.seconds:.1f} s; errors are those on images left out"
        )
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])
