"""Draw a plan: one row per layer, one cell per channel, kept or removed."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ..files.atomic import atomic_write
from ..plan import PruningPlan

KEPT, REMOVED, INK, FAINT = "#0f766e", "#f1d9cf", "#1f2937", "#6b7280"
CELL, GAP = 0.82, 0.34  # width of a cell of 1, space between rows of 1


def draw(plan: PruningPlan, path: Path) -> None:
    """Write the picture of `plan` to `path`, as PNG whatever the suffix."""
    rows = len(plan.keep)
    longest = max(plan.channels[name] for name in plan.keep)
    figure = Figure(figsize=(11, 1.5 + 0.36 * rows), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    height = figure.get_figheight()
    axes = figure.add_axes((0.15, 0.55 / height, 0.73, 1 - 1.5 / height))
    axes.set_xlim(0, longest)
    axes.set_ylim(rows - GAP / 2, -GAP / 2)
    axes.axis("off")

    for row, (name, kept) in enumerate(plan.keep.items()):
        channels = plan.channels[name]
        is_kept = np.isin(np.arange(channels), kept)
        cells = [Rectangle((channel, row), CELL, 1 - GAP) for channel in range(channels)]
        colors = [KEPT if keep else REMOVED for keep in is_kept]
        axes.add_collection(PatchCollection(cells, facecolors=colors, linewidths=0))
        middle = row + (1 - GAP) / 2
        axes.text(-1.5, middle, name, ha="right", va="center", color=INK, family="monospace", fontsize=9.5)
        axes.text(
            channels + 1,
            middle,
            f"{len(kept)} of {channels}",
            ha="left",
            va="center",
            color=FAINT,
            fontsize=9,
        )

    (flops, flops_left), (params, params_left) = plan.flops, plan.params
    left, top = 0.02, 1 - 0.3 / height
    figure.text(left, top, "Channels kept by REPrune", color=INK, fontsize=15, weight="bold", va="center")
    figure.text(
        left,
        top - 0.32 / height,
        f"{100 * flops_left / flops:.1f} % of the FLOPs and {100 * params_left / params:.1f} % of the "
        "parameters remain",
        color=FAINT,
        fontsize=10.5,
        va="center",
    )
    figure.legend(
        handles=[Patch(color=KEPT, label="kept"), Patch(color=REMOVED, label="removed")],
        loc="center right",
        bbox_to_anchor=(0.985, top - 0.1 / height),
        ncols=2,
        frameon=False,
        fontsize=10,
        handlelength=1,
        handleheight=1,
        labelcolor=INK,
    )
    figure.text(
        left,
        0.25 / height,
        "One cell per output channel, in layer order. Convolutions into an addition are not pruned.",
        color=FAINT,
        fontsize=9,
        va="center",
    )
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
