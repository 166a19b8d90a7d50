"""Record what happened while a network was pruned, event by event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any


@dataclass(frozen=True)
class Event:
    """The record of one event. Layers are named by the first convolution of their group."""

    epoch: int
    sparsity: float
    """Fraction of the prunable layers' channels that the selection dropped, before regrowth."""
    kept: Mapping[str, int]
    """{layer: channels selected}."""
    regrown: Mapping[str, int]
    """{layer: channels regrown}."""
    clusters: Mapping[str, int]
    """{layer: clusters of kernels over all input channels}; layers that kept all they had are left out."""
    coverage: float
    """Covered clusters / all clusters, over all layers; 1 where nothing was clustered."""
    flops: float
    """Fraction of the full network's FLOPs that the selected channels need."""
    flops_regrown: float
    """The same after regrowth: the FLOPs of the network that is trained until the next event."""
    seconds: float
    """Time that the event took."""


LAYERS = ("kept", "regrown", "clusters")
"""The fields with one number per layer; the others are single numbers."""


class History:
    """The events so far; `print(history)` shows a table, :meth:`plot` draws them."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events)

    def __getitem__(self, index: int) -> Event:
        return self._events[index]

    def add(self, event: Event) -> None:
        """Append the record of an event."""
        self._events.append(event)

    def to_list(self) -> list[dict[str, Any]]:
        """Return the records as plain values, for JSON."""
        return [asdict(event) for event in self._events]

    @staticmethod
    def from_list(records: list[dict[str, Any]]) -> History:
        """Return the history that :meth:`to_list` wrote; `TypeError` or `ValueError` if it is damaged."""
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise TypeError("expected a list of records")
        history = History()
        for record in records:
            for name, value in record.items():
                numbers = value.values() if isinstance(value, Mapping) else [value]
                kind = Integral if name in (*LAYERS, "epoch") else Real
                if isinstance(value, Mapping) != (name in LAYERS) or not _all_are(kind, numbers):
                    raise TypeError(f"{name} of an event cannot be {value!r}")
            history.add(Event(**record))
        return history

    def __str__(self) -> str:
        lines = [
            f"{'epoch':>5}  {'sparsity':>8}  {'kept':>6}  {'regrown':>7}  {'coverage':>8}  FLOPs left  "
            f"seconds"
        ]
        lines += [
            f"{e.epoch:5d}  {e.sparsity:8.1%}  {sum(e.kept.values()):6d}  {sum(e.regrown.values()):7d}  "
            f"{e.coverage:8.3f}  {e.flops:10.1%}  {e.seconds:7.2f}"
            for e in self._events
        ]
        return "\n".join(lines)

    def plot(self) -> Any:
        """Return a matplotlib figure of coverage rate and FLOPs over the epochs.

        Needs ``pip install "reprune[plot]"``.

        `history.plot().savefig("history.png")` writes it; no window opens.
        """
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.4), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        epochs = [event.epoch for event in self._events]
        for label, values in (
            ("clusters covered", [event.coverage for event in self._events]),
            ("FLOPs of the selected channels", [event.flops for event in self._events]),
            ("FLOPs after regrowth", [event.flops_regrown for event in self._events]),
        ):
            percent = [100 * value for value in values]
            axes.plot(epochs, percent, marker="o", markersize=3, label=label)
        axes.locator_params(axis="x", integer=True)
        axes.set_title("Coverage and FLOPs while pruning", loc="left", weight="bold")
        axes.set_xlabel("epoch")
        axes.set_ylabel("% of the clusters, or of the full network's FLOPs")
        axes.set_ylim(0, 105)
        axes.legend(frameon=False)
        figure.supxlabel(
            "One point per event. Regrown channels are trained until the next event; none at the last.",
            x=0.02,
            ha="left",
            color="#6b7280",
            fontsize=8,
        )
        return figure


def _all_are(kind: type, values: Iterable[Any]) -> bool:
    return all(isinstance(value, kind) for value in values)
