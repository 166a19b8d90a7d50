"""Run all cases one after the other within a time budget."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial

from ..aliases import Progress
from ..clustering import backends, reference
from ..timings import KNOWN, UNTRUSTED, busy_note
from . import coverage, dendrograms, machine, peers, selection, shapes
from .report import Report, Row
from .timing import settle_memory

DEVICES = ("cpu", "cuda")
GROUPS = ("dendrograms", "single", "selection", "coverage")
LARGE_FROM = 60.0  # seconds, from which single problems of 5,000 points take part
SHARES = {  # of the time
    "dendrograms": 1.0,
    "single": 0.1,
    "selection layer": 1.0,
    "selection network": 4.0,
    "coverage": 1.0,
}
EXTRA = 'pip install "reprune[bench]"'


@dataclass(frozen=True)
class Settings:
    """The options of a benchmark that the user chose."""

    groups: Sequence[str] = GROUPS
    methods: Sequence[str] = ("ward",)
    seconds: float = 20.0
    """Approximate total time; it grows where the checks and three rounds of a case take longer."""
    quick: bool = False
    """Whether shapes are tiny, for a trial run."""
    device: str = "cpu"
    """"cuda" measures the GPU too, in Ward linkage, selection and coverage."""

    def __post_init__(self) -> None:
        for what, given, known in (
            ("groups", self.groups, GROUPS),
            ("methods", self.methods, reference.METHODS),
        ):
            if not given or set(given) - set(known):
                raise ValueError(f"{what}: expected some of {', '.join(known)}; got {', '.join(given)}")
        if self.device not in DEVICES:
            raise ValueError(f"device: expected one of {', '.join(DEVICES)}; got {self.device!r}")
        if not 0 < self.seconds < float("inf"):
            raise ValueError(f"seconds: expected a positive number; got {self.seconds}")


Measure = Callable[[float], list[Row]]  # seconds -> rows


def run(settings: Settings, progress: Progress) -> Report:
    """Check and time everything; report through `progress(stage, done, total)`.

    Raises:
        WrongAnswer: an answer is wrong; no figures are returned then.
        BackendUnavailable: the C++ core, with which everything is compared, or the GPU is missing.
    """
    start = time.perf_counter()
    beside = [note for note in [busy_note()] if note]
    backends.resolve("cpp")
    if settings.device == "cuda":
        backends.resolve("triton")
    cores = machine.cores()
    cases = list(_cases(settings, cores))
    total = sum(SHARES[kind] for kind, _ in cases)
    rows: list[Row] = []
    settle_memory()
    for group in GROUPS:
        mine = [(kind, measure) for kind, measure in cases if kind.startswith(group)]
        for done, (kind, measure) in enumerate(mine):
            progress(group, done, len(mine))
            rows += measure(settings.seconds * SHARES[kind] / total)
        if mine:
            progress(group, len(mine), len(mine))
    taken = time.perf_counter() - start
    return Report(
        machine.facts(), rows, [*beside, *_doubts(rows), *_notes(settings)], asdict(settings), taken
    )


def _doubts(rows: Sequence[Row]) -> list[str]:
    doubtful = sum(not row.trusted for row in rows)
    if not doubtful:
        return []
    return [
        f"{doubtful} of {len(rows)} times are {UNTRUSTED}, those with a question mark: their rounds differ "
        f"so much that the median may be off by more than {100 * KNOWN:.0f} %. More --seconds help, and "
        "fewer other programs."
    ]


def _cases(settings: Settings, cores: int) -> list[tuple[str, Measure]]:
    quick, device, found = settings.quick, settings.device, list[tuple[str, Measure]]()
    if "dendrograms" in settings.groups:
        for shape in shapes.QUICK_BATCHES if quick else shapes.BATCHES:
            for method in settings.methods:
                found.append(("dendrograms", partial(_dendrograms, shape, method, cores, device)))
    if "single" in settings.groups:
        large = shapes.LARGE_SINGLES if settings.seconds >= LARGE_FROM else ()
        for shape in shapes.QUICK_SINGLES if quick else shapes.SINGLES + large:
            for method in settings.methods:
                found.append(("single", partial(_dendrograms, shape, method, 1, "cpu")))
    if "selection" in settings.groups:
        for layer in shapes.QUICK_LAYERS if quick else shapes.LAYERS:
            found.append(("selection layer", partial(_selection, str(layer), [layer], cores, device)))
        for name in shapes.NETWORKS if shapes.networks_known() and not quick else ():
            layers = shapes.network(name)
            found.append(("selection network", partial(_selection, name, layers, cores, device)))
    if "coverage" in settings.groups:
        for table in shapes.QUICK_TABLES if quick else shapes.TABLES:
            found.append(("coverage", partial(coverage.measure, table, device=device)))
    return found


def _dendrograms(
    shape: tuple[int, int, int], method: str, cores: int, device: str, seconds: float
) -> list[Row]:
    return dendrograms.measure(shape, method, seconds, cores, device)


def _selection(
    name: str, layers: Sequence[shapes.Layer], cores: int, device: str, seconds: float
) -> list[Row]:
    return selection.measure(name, layers, seconds, cores, device)


def _notes(settings: Settings) -> list[str]:
    notes = [
        "Data are standard normal, from a fixed seed; selection keeps half of the filters of every layer.",
        "Figures are medians of rounds in which the implementations are interleaved. One thread is CPU time "
        "of the process; several threads are wall time, marked by an asterisk. 'times' compares with the C++ "
        "core on one thread by the same clock: above 1 is slower. 'run' is the part of the case that was run "
        "(scaled linearly to all) and how often.",
        "Memory is warm: freed arrays are kept by the process, so page faults are not measured.",
        "Every answer was checked before it was timed; a wrong one ends the benchmark without a figure.",
    ]
    if settings.device == "cuda":
        notes.append(
            "Times of triton, also marked by an asterisk, lie between two events on the GPU's stream, after "
            "warming up, with data in its memory and three sets of inputs in turn; they include the copy of "
            "what a plan needs to the host, and are compared with wall time of the C++ core on one thread."
        )
    if {"dendrograms", "single"} & set(settings.groups):
        notes.append(
            "Dendrograms: heights within 1e-12 relative (or four units in the last place of the largest) and "
            "the same clusters at several levels as scipy. A kernel is a point here. fastcluster is its "
            "linkage, 'fastcluster, vector' its linkage_vector. Complete and average store the full square "
            "of distances, twice what the others keep, so that rows are contiguous."
        )
    if "single" in settings.groups:
        notes.append(
            "Single problems: 'best / cpp' is the time of the fastest other library / ours; below 1 ours is "
            "slower. For ten points, and a hundred of one or two coordinates, most of the time goes into "
            "checking the arguments in Python. In complete and average linkage each merge writes a column of "
            "the distance matrix, one cache line per number; contiguous rows outweigh that only where rows "
            "or distances are longer than those of a thousand such points. Problems of 5,000 points are "
            f"included from --seconds {LARGE_FROM:.0f} up, without the libraries that are slowest there."
        )
    if "selection" in settings.groups:
        notes.append(
            "Selection: problems are input channels. The peers run some channels and picks of every distinct "
            "shape of layer, scaled linearly to all; scipy is linkage + fcluster + a greedy in numpy, "
            "fastcluster the same with the faster of its linkage and linkage_vector, shape by shape. "
            "scikit-learn is left out there: without connectivity it calls scipy."
        )
        if not shapes.networks_known() and not settings.quick:
            notes.append('Networks are left out: they need torchvision (pip install "reprune[vision]").')
    if "coverage" in settings.groups:
        notes.append("Coverage: problems are channels; the numpy greedy gathers all gains at every pick.")
    missing = [library for library in peers.MODULES if not peers.installed(library)]
    if missing:
        notes.append(f"Not installed, so not compared: {', '.join(missing)} ({EXTRA}).")
    return notes
