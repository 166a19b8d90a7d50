"""Run `reprune bench`: measure clustering, selection and coverage here, beside other libraries."""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from .. import bench
from ..bench import DEVICES, Report, Settings, markdown
from ..clustering import reference
from ..files.atomic import write_text
from . import console as tables
from .errors import UserError
from .outputs import check_output
from .progress import Stages

COLUMNS = ("", "time", "problems/s", "kernels/s", "times", "run")


def add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", common: argparse.ArgumentParser
) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "bench",
        parents=[common],
        help="measure clustering, selection and coverage here, beside scipy, fastcluster, scikit-learn",
        description="Check and time every backend and the libraries that are installed, in the same run. "
        "A wrong answer ends the command with exit status 1 and without figures.",
    )
    parser.add_argument(
        "groups", nargs="*", metavar="GROUP", help=f"some of {', '.join(bench.GROUPS)} (default: all)"
    )
    parser.add_argument(
        "--method",
        choices=(*reference.METHODS, "all"),
        default="ward",
        help="linkage of the dendrograms (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=20.0, metavar="S", help="approximate total time (default: 20)"
    )
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="cpu",
        help="cuda: measure the GPU too; an error where there is none (default: %(default)s)",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a bar chart (.png, .svg or .pdf)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a page with all tables")
    parser.add_argument("--quick", action="store_true", help="tiny shapes: a trial run, not a result")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Measure, then print the report and write it to files."""
    methods = reference.METHODS if arguments.method == "all" else (arguments.method,)
    groups = arguments.groups or bench.GROUPS
    settings = Settings(tuple(groups), tuple(methods), arguments.seconds, arguments.quick, arguments.device)
    _check_files(arguments)
    with Stages() as stages:
        report = bench.run(settings, stages)
    if arguments.json:
        json.dump(report.to_dict(), sys.stdout, indent=2)
        print()
    else:
        show_report(report)
    if arguments.markdown is not None:
        page = markdown.page(report, command(arguments), tables.duration, tables.count)
        write_text(arguments.markdown, page)
    if arguments.plot is not None:
        from ..bench import picture  # needs matplotlib, which is an extra

        picture.draw(report, arguments.plot, tables.count)


def show_report(report: Report) -> None:
    """Print which backends and libraries are available, and a table per group."""
    tables.show("Measured on", ("", ""), report.facts.items())
    for group, title in markdown.TITLES.items():
        rows = [row for row in report.rows if row.group == group]
        if group == "single" and rows:
            tables.show(title, *markdown.side_by_side(rows, tables.duration))
            continue
        shown: list[tuple[str, ...]] = []
        before = ""
        for row in rows:
            case, who, *cells = markdown.cells(row, tables.duration, tables.count)
            if case != before:
                shown.append((case,))
            shown.append((f" {who}", *cells[: len(COLUMNS) - 1]))
            before = case
        if rows:
            tables.show(title, COLUMNS, shown)
    for note in report.notes:
        tables.say(note)


def command(arguments: argparse.Namespace) -> str:
    """Return the command line that measures this again, without the files it writes."""
    words = ["reprune bench", *arguments.groups]
    if arguments.method != "ward":
        words.append(f"--method {arguments.method}")
    if arguments.seconds != 20:
        words.append(f"--seconds {arguments.seconds:g}")
    if arguments.device != "cpu":
        words.append(f"--device {arguments.device}")
    if arguments.quick:
        words.append("--quick")
    return " ".join(words)


def _check_files(arguments: argparse.Namespace) -> None:
    """Check the output files before anything long begins."""
    if arguments.markdown is not None:
        check_output("--markdown", arguments.markdown)
    if arguments.plot is not None:
        check_output("--plot", arguments.plot, {"--markdown": arguments.markdown})
        if arguments.plot.suffix not in {"", ".png", ".svg", ".pdf"}:
            raise UserError(f"--plot {arguments.plot}: expected a name that ends in .png, .svg or .pdf")
        if find_spec("matplotlib") is None:
            raise UserError('--plot needs matplotlib: pip install "reprune[demo]"')
