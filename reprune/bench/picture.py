"""Draw kernels per second as bars: one panel per group, one cluster of bars per case."""

from collections.abc import Callable
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..files.atomic import atomic_write
from .markdown import TITLES
from .report import ONE, Report, Row

INK = "#1f2937"
ONE_THREAD, THREADS = "#0f766e", "#5eaaa3"
PEERS = {  # by how the name begins; the first that fits counts
    "reference": "#a8b3c2",
    "scipy": "#b45309",
    "fastcluster, vector": "#e8c79a",
    "fastcluster": "#d99a4e",
    "scikit-learn": "#8b5e83",
    "numpy": "#64748b",
}


def draw(report: Report, path: Path, count: Callable[[float], str]) -> None:
    """Write the bar chart to `path`; its suffix sets the format, `count` formats large numbers."""
    groups = {group: [row for row in report.rows if row.group == group] for group in TITLES}
    groups = {group: rows for group, rows in groups.items() if rows}
    if len(groups) > 1:
        groups.pop("single", None)  # up to 80 cases, for which the table is the better picture
    heights = [len(rows) + 1.2 * len({row.case for row in rows}) for rows in groups.values()]
    figure = Figure(figsize=(10, 1.4 + 0.21 * sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)
    for axes, (group, rows) in zip(panels[:, 0], groups.items(), strict=True):
        _panel(axes, rows, count)
        axes.set_title(TITLES[group], loc="left", fontsize=11, fontweight="bold", color=INK)
    panels[-1, 0].set_xlabel("kernels per second (logarithmic; more is better)", color=INK)
    figure.suptitle(
        "Speed of clustering and selection", fontsize=14, fontweight="bold", color=INK, x=0.01, ha="left"
    )
    figure.supxlabel(
        f"{report.facts['processor']} · {report.facts['date']} · reprune {report.facts['reprune']}",
        fontsize=9,
        color="#6b7280",
        x=0.01,
        ha="left",
    )
    with atomic_write(path) as file:
        figure.savefig(file, dpi=130, format=path.suffix.removeprefix(".") or "png")


def _panel(axes: Axes, rows: list[Row], count: Callable[[float], str]) -> None:
    place, ticks, labels = 0.0, list[float](), list[str]()
    for case in dict.fromkeys(row.case for row in rows):
        mine = [row for row in rows if row.case == case]
        ticks.append(place + (len(mine) - 1) / 2)
        labels.append(case)
        for row in mine:
            axes.barh(place, row.kernels_per_s, height=0.86, color=_colour(row.who))
            axes.text(
                row.kernels_per_s * 1.06,
                place,
                f"{row.who}   {count(row.kernels_per_s)}/s",
                va="center",
                fontsize=7,
                color=INK,
            )
            place += 1
        place += 1.2
    axes.set_yticks(ticks, labels, fontsize=8)
    axes.set_ylim(place - 1.6, -1)  # the first case on top
    axes.set_xscale("log")
    low, high = min(row.kernels_per_s for row in rows), max(row.kernels_per_s for row in rows)
    axes.set_xlim(low / 3, high * 12)  # room for the words behind the bars
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right"]].set_visible(False)


def _colour(who: str) -> str:
    ours = {ONE: ONE_THREAD}.get(who, THREADS)
    return next((colour for start, colour in PEERS.items() if who.startswith(start)), ours)
