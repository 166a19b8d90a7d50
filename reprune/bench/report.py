"""What a benchmark found."""

from dataclasses import asdict, dataclass
from typing import Any

from .timing import Timing

ONE = "cpp, 1 thread"  # what the others are compared with


@dataclass(frozen=True)
class Row:
    """One way through one case."""

    group: str
    case: str
    who: str
    clock: str
    """"CPU": CPU time, of one thread. "wall": time that passed, of several threads."""
    seconds: float
    """Median time of the whole case."""
    runs: int
    problems_per_s: float
    kernels_per_s: float
    times: float
    """How many times as long as the C++ core on one thread, by the same clock."""
    part: str
    """Which part of the case was run, where it was scaled up from that; "" for all."""
    checked: str
    """How much of the answer was compared with an independent one before it was timed."""


@dataclass(frozen=True)
class Report:
    """Everything that a page or a table shows."""

    facts: dict[str, str]
    """Machine, versions, backends."""
    rows: list[Row]
    notes: list[str]
    settings: dict[str, Any]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Case:
    """What is measured, before it is."""

    group: str
    name: str
    problems: int
    kernels: int

    def rows(
        self, timings: dict[str, Timing], parts: dict[str, str], checked: dict[str, str], cores: int
    ) -> list[Row]:
        """The rows, ours first; ``parts`` and ``checked`` by contestant."""
        one = timings[ONE]
        found = []
        for who, timing in timings.items():
            several = who == all_threads(cores)
            seconds = timing.wall if several else timing.cpu
            found.append(
                Row(
                    group=self.group,
                    case=self.name,
                    who=who,
                    clock="wall" if several else "CPU",
                    seconds=seconds,
                    runs=timing.runs,
                    problems_per_s=self.problems / seconds,
                    kernels_per_s=self.kernels / seconds,
                    times=seconds / (one.wall if several else one.cpu),
                    part=parts.get(who, ""),
                    checked=checked.get(who, ""),
                )
            )
        return found


def all_threads(cores: int) -> str:
    """The name in tables of the C++ core on every core."""
    return f"cpp, {cores} threads"
