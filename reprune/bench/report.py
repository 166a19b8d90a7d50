"""Hold what a benchmark measured."""

from dataclasses import asdict, dataclass
from typing import Any

from ..timings import KNOWN
from .timing import Timing

ONE = "cpp, 1 thread"  # what the others are compared with
GPU = "triton"


@dataclass(frozen=True)
class Row:
    """One implementation in one case."""

    group: str
    case: str
    who: str
    clock: str
    """"CPU": CPU time, of one thread. "wall": time that passed, of several threads. "GPU": time between two
    events on the GPU's stream."""
    seconds: float
    """Median time of the whole case."""
    runs: int
    problems_per_s: float
    kernels_per_s: float
    times: float
    """Time divided by that of the C++ core on one thread, by the same clock."""
    part: str
    """The part of the case that was run, if the time was scaled up from it; "" for all."""
    checked: str
    """How much of the answer was compared with an independent one before it was timed."""
    off: float
    """Relative error that the time may have."""

    @property
    def trusted(self) -> bool:
        return self.off <= KNOWN


@dataclass(frozen=True)
class Report:
    """Everything that a page or a table shows."""

    facts: dict[str, str]
    """Machine, versions and backends."""
    rows: list[Row]
    notes: list[str]
    settings: dict[str, Any]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Case:
    """A case that is about to be measured."""

    group: str
    name: str
    problems: int
    kernels: int

    def rows(
        self, timings: dict[str, Timing], parts: dict[str, str], checked: dict[str, str], cores: int
    ) -> list[Row]:
        """Return the rows, ours first; `parts` and `checked` are by implementation."""
        one = timings[ONE]
        found = []
        for who, timing in timings.items():
            clock = "GPU" if who == GPU else "wall" if who == all_threads(cores) else "CPU"
            seconds = timing.cpu if clock == "CPU" else timing.wall
            found.append(
                Row(
                    group=self.group,
                    case=self.name,
                    who=who,
                    clock=clock,
                    seconds=seconds,
                    runs=timing.runs,
                    problems_per_s=self.problems / seconds,
                    kernels_per_s=self.kernels / seconds,
                    times=seconds / (one.cpu if clock == "CPU" else one.wall),
                    part=parts.get(who, ""),
                    checked=checked.get(who, ""),
                    off=timing.off.cpu if clock == "CPU" else timing.off.wall,
                )
            )
        return found


def all_threads(cores: int) -> str:
    """Return the name, in tables, of the C++ core on every core."""
    return f"cpp, {cores} threads"
