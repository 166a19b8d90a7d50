"""Print the tables of the command line and format numbers for them."""

from collections.abc import Callable, Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..plan import PruningPlan

MOST_LAYERS = 20  # rows of a layer table that is not asked for as a whole
BAR = 24


def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> None:
    """Print a table on stdout: the first column to the left, the others to the right."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, caption=note or None
    )
    table.caption_justify = "left"
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def layers(plan: PruningPlan, most: int = MOST_LAYERS) -> None:
    """Print what every layer keeps; beyond `most` rows, print only how many more there are."""
    rows = []
    for name, kept in plan.keep.items():
        total = plan.channels[name]
        filled = max(1, round(BAR * len(kept) / total))
        rows.append((name, "█" * filled + "░" * (BAR - filled), f"{len(kept)} of {total}"))
    hidden = max(0, len(rows) - most)
    note = f"and {hidden} more layers: reprune show FILE lists all" if hidden else ""
    show("Channels kept", ("layer", "", "channels"), rows[: most if hidden else None], note)


def skipped(plan: PruningPlan) -> None:
    """Print the layers that cannot be pruned and why, if there are any."""
    reasons: dict[str, list[str]] = {}
    for name, reason in plan.skipped.items():
        reasons.setdefault(reason, []).append(name)
    if reasons:
        rows = [
            (reason, str(len(names)), names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}")
            for reason, names in reasons.items()
        ]
        show("Not pruned", ("reason", "layers", "which"), rows)


def say(text: str) -> None:
    """Print a line of plain words below a table."""
    Console().print(text, highlight=False, markup=False, soft_wrap=True)


def before_after(what: str, before: float, after: float, write: Callable[[float], str]) -> tuple[str, ...]:
    """Return a row of a quantity before and after, with the fraction that remains."""
    return what, write(before), write(after), percent(after / before)


def count(number: float) -> str:
    """Format a count: `4089184256` -> `4.09 G`."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number:.0f}"


def memory(size: float) -> str:
    """Format bytes: `102540112` -> `102.5 MB`."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def duration(seconds: float) -> str:
    """Format seconds with three digits at any magnitude: `0.00274` -> `2.74 ms`."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def milliseconds(seconds: float) -> str:
    """Format seconds as milliseconds: `0.00274` -> `2.74 ms`."""
    return f"{1e3 * seconds:.2f} ms"


def percent(share: float) -> str:
    """Format a fraction: `0.985` -> `98.5 %`."""
    return f"{100 * share:.1f} %"
