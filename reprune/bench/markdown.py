"""Write a report as a Markdown page: what was measured, on what, and how."""

from collections.abc import Callable, Iterable, Sequence

from .report import ONE, Report, Row

HEAD = ("case", "by", "time", "problems/s", "kernels/s", "times", "run", "checked")
Write = Callable[[float], str]
TITLES = {
    "dendrograms": "Full dendrograms of batches",
    "single": "Dendrograms of single problems",
    "selection": "Selection of filters",
    "coverage": "Maximum coverage alone",
}


def page(report: Report, command: str, duration: Write, count: Write) -> str:
    """Return the page; `duration` and `count` format seconds and large numbers."""
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
    facts = [(what, value.replace("|", "/")) for what, value in report.facts.items()]
    lines += ["", "## Measured on", "", *table(("", ""), facts)]
    for group, title in TITLES.items():
        rows = [row for row in report.rows if row.group == group]
        if group == "single" and rows:
            head, by_case = side_by_side(rows, duration)
            lines += ["", f"## {title}", "", *table(head, by_case, "l" + "r" * (len(head) - 1))]
        elif rows:
            of_all = (cells(row, duration, count) for row in rows)
            lines += ["", f"## {title}", "", *table(HEAD, of_all, "llrrrrll")]
    return "\n".join([*lines, ""])


def cells(row: Row, duration: Write, count: Write) -> tuple[str, ...]:
    """Return a row of the table, in the order of `HEAD`."""
    rates = count(row.problems_per_s), count(row.kernels_per_s)
    part = row.part or "all"
    return (
        row.case,
        row.who,
        duration(row.seconds) + ("" if row.clock == "CPU" else "*") + doubt(row),
        *rates,
        f"{row.times:.3g}",
        f"{part} {row.runs}x",
        row.checked,
    )


def doubt(row: Row) -> str:
    """Return the mark of a time that is not to be trusted."""
    return "" if row.trusted else "?"


def side_by_side(rows: list[Row], duration: Write) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return head and lines of a table with a line per case and a column per implementation.

    The last column is the time of the best other implementation divided by ours.
    """
    names = list(dict.fromkeys(row.who for row in rows))
    lines = []
    for case in dict.fromkeys(row.case for row in rows):
        by = {row.who: row for row in rows if row.case == case}
        times = (duration(by[name].seconds) + doubt(by[name]) if name in by else "" for name in names)
        best = min((row.times for row in by.values() if row.who != ONE), default=None)
        lines.append((case, *times, "" if best is None else f"{best:.3g}"))
    return ("case", *names, "best / cpp"), lines


def table(head: Sequence[str], rows: Iterable[Sequence[str]] = (), columns: str = "") -> list[str]:
    """Return the lines of a Markdown table.

    `columns` has an "l" or "r" for each column whose cells are put to the left or right; "" is all "l".
    """
    rules = ("---:" if column == "r" else "---" for column in columns or "l" * len(head))
    return [line(*head), f"|{'|'.join(rules)}|", *(line(*row) for row in rows)]


def line(*cells: str) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
