"""Display progress: a line per stage on stderr, which leaves stdout to tables and JSON."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

WORDS = {
    "build": "Build the network",
    "weights": "Read the weights",
    "probe": "Run it once",
    "trace": "Trace the channels",
    "calibrate": "Run it on the images",
    "measure": "Time networks",
    "select": "Choose the filters",
    "certify": "Check the cut",
    "compensate": "Compensate the layers",
    "save": "Save the small network",
    "images": "Read the images",
    "pace": "Time a few steps",
    "train": "Train the network",
    "train and prune": "Train again, and prune",
}


class Stages:
    """Shows the stages it is told: `stages(stage, done, total)`, the signature of every `progress=`.

    A stage begins with its first call (`total=0` while its length is unknown), which ends the previous ones.
    """

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Stages":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is None:
            self._finish()
        self._progress.stop()

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        if stage not in self._tasks:
            self._finish()
            self._tasks[stage] = self._progress.add_task(WORDS.get(stage, stage.capitalize()))
        self._progress.update(self._tasks[stage], completed=done, total=total or None)

    def _finish(self) -> None:
        for task in self._progress.tasks:
            if not task.finished:
                self._progress.update(task.id, total=task.total or 1, completed=task.total or 1)
