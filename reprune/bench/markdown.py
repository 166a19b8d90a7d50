"""The page of a report: what was measured, on what, and how."""

from collections.abc import Callable

from .report import Report, Row

HEAD = ("case", "by", "time", "problems/s", "kernels/s", "times", "run", "checked")
Write = Callable[[float], str]
TITLES = {
    "dendrograms": "Full dendrograms of batches",
    "selection": "Selection of filters",
    "coverage": "Maximum coverage alone",
}


def page(report: Report, command: str, duration: Write, count: Write) -> str:
    """The whole page; ``duration`` and ``count`` write seconds and large numbers."""
    lines = [
        "# Performance",
        "",
        "This page was written by the benchmark itself; run it on your machine:",
        "",
        "```bash",
        command,
        "```",
        "",
    ]
    lines += [f"- {note}" for note in report.notes]
    lines += ["", "## Measured on", "", "| | |", "|---|---|"]
    lines += [f"| {what} | {value.replace('|', '/')} |" for what, value in report.facts.items()]
    for group, title in TITLES.items():
        rows = [row for row in report.rows if row.group == group]
        if rows:
            lines += ["", f"## {title}", "", _row(HEAD), "|---|---|" + "---:|" * 4 + "---|---|"]
            lines += [_row(cells(row, duration, count)) for row in rows]
    return "\n".join([*lines, ""])


def cells(row: Row, duration: Write, count: Write) -> tuple[str, ...]:
    """A row of the table, in the order of ``HEAD``."""
    rates = count(row.problems_per_s), count(row.kernels_per_s)
    part = row.part or "all"
    return (
        row.case,
        row.who + (" (wall)" if row.clock == "wall" else ""),
        duration(row.seconds),
        *rates,
        f"{row.times:.3g}",
        f"{part} {row.runs}x",
        row.checked,
    )


def _row(values: tuple[str, ...]) -> str:
    return "| " + " | ".join(values) + " |"
