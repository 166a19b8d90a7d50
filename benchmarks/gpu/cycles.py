"""How long launches take on an H200: a model whose coefficients are fitted to what was measured on one.

Run: python -m benchmarks.gpu.cycles    (says how far it is off, on rows it was fitted to and on others)

docs/results/gpu_measured.jsonl has Ward's linkage of points of nine coordinates as it was timed on an H200
(microseconds a problem of `problems` in one launch, or two for "stop", which ends at the cut of a selection):
an earlier edition of the kernels, in float32 and float64, and the prototype of those of today. Beside each
stands what the PTX simulator counts for a problem of normal numbers: warp instructions, those of them in
float64, sectors of 32 bytes that are read or written, barriers; `resident` warps of a multiprocessor that
registers suffice for; and the bytes of state that scans read again and again.

A problem of W warps takes

    cycles = I (a w + b) + F (c w + d) + e M S + f N

I instructions, F of them in float64, and S sectors for each of its warps, N barriers; w warps share a
scheduler (at least 1); M = (1 - L1 / state)^2 is about the share of sectors that L1 does not hold, of all
states on a multiprocessor. a and c are what throughput costs, b and d latency. All are at least 0, fitted by
least squares of relative errors; L1 = 256 kB and the square were chosen by looking at all rows.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import nnls

MEASURED = Path(__file__).parents[2] / "docs" / "results" / "gpu_measured.jsonl"
HELD_OUT = (128, 512, 2048)
"""Points of the rows that a fit is judged by; all others are fitted."""

MULTIPROCESSORS, HERTZ, L1 = 132, 1.98e9, 256e3
NAMES = ("issue", "latency", "float64 issue", "float64 latency", "L1 misses", "barriers")


@dataclass(frozen=True)
class Launch:
    """Problems alike, side by side in one launch; counts are of one problem."""

    points: int
    problems: int
    warps: int
    resident: int
    instructions: float
    f64: float
    sectors: float
    barriers: float
    state: float

    @property
    def together(self) -> int:
        """Problems on a multiprocessor at once."""
        return max(1, min(self.resident // self.warps, math.ceil(self.problems / MULTIPROCESSORS)))

    @property
    def rounds(self) -> float:
        """How often every multiprocessor takes as many."""
        return max(1.0, self.problems / MULTIPROCESSORS / self.together)

    def features(self) -> npt.NDArray[np.float64]:
        """What the coefficients are multiplied by: cycles of a problem, in the order of :data:`NAMES`."""
        sharing = max(1.0, self.together * self.warps / 4)
        missed = max(0.0, 1 - L1 / (self.together * self.state)) ** 2
        plain, double = self.instructions / self.warps, self.f64 / self.warps
        miss = missed * self.sectors / self.warps
        return np.array([plain * sharing, plain, double * sharing, double, miss, self.barriers])


@dataclass(frozen=True)
class Row:
    """A measured launch."""

    kernel: str
    dtype: str
    launch: Launch
    seconds: float


def measured() -> list[Row]:
    rows = []
    for line in MEASURED.read_text().splitlines():
        row = json.loads(line)
        kernel, dtype, microseconds = (row.pop(name) for name in ("kernel", "dtype", "microseconds"))
        launch = Launch(**row)
        rows.append(Row(kernel, dtype, launch, 1e-6 * microseconds * launch.problems))
    return rows


def fit(rows: list[Row]) -> npt.NDArray[np.float64]:
    """Coefficients, in cycles."""
    features = [row.launch.rounds * row.launch.features() / (HERTZ * row.seconds) for row in rows]
    found: npt.NDArray[np.float64] = nnls(np.array(features), np.ones(len(rows)))[0]
    return found


def seconds(launch: Launch, coefficients: npt.NDArray[np.float64]) -> float:
    """Of a launch by itself."""
    return launch.rounds * float(launch.features() @ coefficients) / HERTZ


def errors(rows: list[Row], coefficients: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Predicted / measured."""
    return np.array([seconds(row.launch, coefficients) / row.seconds for row in rows])


def main() -> None:
    rows = measured()
    fitted = [row for row in rows if row.launch.points not in HELD_OUT]
    others = [row for row in rows if row.launch.points in HELD_OUT]
    some, every = fit(fitted), fit(rows)
    print(" " * 28 + " ".join(f"{name:>16}" for name in NAMES))
    for name, own in ((f"{len(fitted)} rows", some), (f"all {len(rows)}, for predictions", every)):
        print(f"{name:28}" + " ".join(f"{x:16.2f}" for x in own))
    for name, part, own in (
        ("fitted to the rows below", fitted, some),
        ("held out", others, some),
        ("all, fitted to all", rows, every),
    ):
        ratios = errors(part, own)
        mean = np.exp(np.abs(np.log(ratios)).mean()) - 1
        least, most = ratios.min(), ratios.max()
        print(f"\n{name}: off by {mean:.0%} in the mean, predicted / measured {least:.2f} to {most:.2f}")
        if own is some:
            for row, ratio in zip(part, ratios, strict=True):
                at = row.launch
                print(
                    f"  {row.kernel:14} {row.dtype} {at.points:5} points x {at.problems:4}, {at.warps} warps:"
                    f" {1e6 * row.seconds / at.problems:8.3f} us, {ratio:.2f}"
                )


if __name__ == "__main__":
    main()
