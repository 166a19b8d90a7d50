"""The zoo table: every network of torchvision and 60 of timm, pruned. Written to docs/results/zoo.md.

::

    python -m benchmarks.zoo                                # hours; goes on where it was stopped
    python -m benchmarks.zoo --suite timm --columns exact
    python -m benchmarks.zoo --only resnet50 vgg16_bn --columns latency
    python -m benchmarks.zoo --table                        # only writes the table again

Each network, with random weights, is measured in a process of its own with a time limit, and its row
appended to a file of JSON lines; what is there is not measured again (`--again` measures it anew).

prunable    fraction of the channels that may leave, and of the FLOPs in layers that can shrink
reached     FLOPs left by make_plan(flops=0.5, scope="all", layers="all", rule="uniform"); where its error
            says that more must stay, that much
error       30 % of every group dropped at random, in float64: largest difference between the pruned network
            and the full one with the consumers' input slices zeroed, relative to the largest output; in
            evaluation, and in training mode
ONNX        the network so planned, in float32: onnxruntime against eager, relative
latency     time of the full network over that of the planned one, batch 1 and 16, in turns, channels_last
plan        time of make_plan, graph and selection, on the wall and of the processor; peak: the model's
            memory and what make_plan takes at most besides, over the model's (of small ones, several times)
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.zoo import networks
from reprune.bench import markdown
from reprune.files.atomic import write_text

ROOT = Path(__file__).parents[2]
HEADS = {
    "classifier": "Classifiers of torchvision",
    "detector": "Detectors of torchvision",
    "segmenter": "Segmenters of torchvision",
    "video": "Video networks of torchvision",
    "timm": "Networks of timm",
}
COLUMNS = ("exact", "onnx", "latency")
EXACT, AGREES, NEAR = 1e-9, 1e-4, 0.02
OF_THE_PLAN = {"reached", "out_of_reach"}
TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours and the like, which some libraries put into their error messages."""


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    """{kind/name: row}; a later line for a network adds its columns, and what it says replaces the old."""
    rows: dict[str, dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        new = json.loads(line)
        key = f"{new['kind']}/{new['name']}"
        old = rows.setdefault(key, {"columns": [], "problems": {}})
        again = {"plan", "process", *new["columns"]}
        problems = {column: text for column, text in old["problems"].items() if column not in again}
        columns = sorted({*old["columns"], *new["columns"]})
        if "reached" in new or "plan" in new["problems"]:  # what an older plan said is of no interest
            old = rows[key] = {what: value for what, value in old.items() if what not in OF_THE_PLAN}
        old.update(new, problems={**problems, **new["problems"]}, columns=columns)
    return rows


def measured(network: networks.Network, columns: list[str], timeout: float) -> dict[str, Any]:
    """These columns of the row of `network`, from a process of its own."""
    words = [sys.executable, "-m", "benchmarks.zoo", "--one", network.kind, network.name]
    words += ["--columns", *columns]
    failed = {"name": network.name, "kind": network.kind, "columns": columns}
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {**failed, "problems": {"process": f"not done after {timeout} s"}}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return {**failed, "problems": {"process": f"exit status {done.returncode}: {last}"[:500]}}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", choices=("torchvision", "timm", "all"), default="all")
    parser.add_argument("--kind", nargs="+", choices=HEADS, help="only networks of these kinds")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these networks")
    parser.add_argument("--again", action="store_true", help="measure those that have a row too")
    parser.add_argument(
        "--columns",
        nargs="+",
        choices=COLUMNS,
        default=["exact", "onnx"],
        metavar="WHAT",
        help=f"besides the plan: {', '.join(COLUMNS)} (slow); default: exact onnx",
    )
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one network")
    parser.add_argument("--rows", type=Path, default=ROOT / "docs" / "results" / "zoo.jsonl")
    parser.add_argument("--markdown", type=Path, default=ROOT / "docs" / "results" / "zoo.md")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the table")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        from benchmarks.zoo.measure import measure

        kind, name = arguments.one
        network = networks.Network(name, kind)
        print(json.dumps(measure(network, arguments.columns)))
        return
    for network in [] if arguments.table else networks.networks(arguments.suite):
        row = rows_of(arguments.rows).get(f"{network.kind}/{network.name}", {"columns": []})
        columns = [c for c in arguments.columns if arguments.again or c not in row["columns"]]
        wanted = (not arguments.only or network.name in arguments.only) and (
            not arguments.kind or network.kind in arguments.kind
        )
        if not wanted or not columns:
            continue
        row = measured(network, columns, arguments.timeout)
        with arguments.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(network.name, cells(row), *row["problems"].items(), flush=True)
    write_text(arguments.markdown, table(rows_of(arguments.rows)))


def cells(row: dict[str, Any]) -> list[str]:
    """The columns after the name."""

    def show(key: str, form: str) -> str:
        return form.format(row[key]) if key in row else "-"

    latency = row.get("latency", {})
    return [
        show("parameters", "{:,}"),
        show("channels", "{:.1%}") + " / " + show("channels_internal", "{:.1%}"),
        show("flops", "{:.1%}"),
        show("reached", "{:.4f}"),
        show("error", "{:.0e}") + " / " + show("error_training", "{:.0e}"),
        show("onnx", "{:.0e}"),
        " / ".join(f"{ratio:.2f}" for ratio in latency.values()) or "-",
        show("plan_s", "{:.1f} s") + " / " + show("plan_cpu_s", "{:.1f} s"),
        show("peak", "{:.2f}"),
    ]


TITLES = (
    "network",
    "parameters",
    "prunable channels: all / internal",
    "prunable FLOPs",
    "FLOPs at 0.5",
    "error: evaluation / training",
    "ONNX",
    "latency ratio: batch 1 / 16",
    "plan: wall / CPU time",
    "peak memory",
)


def table(rows: dict[str, dict[str, Any]]) -> str:
    """docs/results/zoo.md."""
    lines = [
        f"# The zoo: {len(rows)} networks",
        "",
        "`python -m benchmarks.zoo` wrote this page; its first lines say what the columns are. The weights",
        "are random. A dash means that a figure was not measured, or that measuring it failed; the failures",
        "are listed below each table.",
        "",
    ]
    for kind, head in HEADS.items():
        mine = sorted((row for row in rows.values() if row["kind"] == kind), key=name_of)
        if mine:
            lines += [f"## {head}", "", summary(mine), ""]
            lines += markdown.table(TITLES, [(row["name"], *cells(row)) for row in mine])
            lines += [
                "",
                *(f"- {row['name']}: {row['out_of_reach']}" for row in mine if "out_of_reach" in row),
            ]
            problems = [(row["name"], *item) for row in mine for item in row["problems"].items()]
            lines += [*(f"- {name}, {column}: {plain(text)}" for name, column, text in problems), ""]
    return "\n".join(lines).rstrip() + "\n"


def plain(text: str) -> str:
    """An error message as it may stand on a page."""
    text = TERMINAL.sub("", text).replace("<", "&lt;").strip()
    return text + " ..." if len(text) >= 450 else text


def name_of(row: dict[str, Any]) -> str:
    return str(row["name"])


def summary(rows: list[dict[str, Any]]) -> str:
    """How many of the rows that were measured are as they should be."""
    errors = [max(row["error"], row.get("error_training", 1)) for row in rows if "error" in row]
    left = [row["reached"] for row in rows if "reached" in row]
    agree = [row["onnx"] for row in rows if "onnx" in row]
    failed = sum(bool(row["problems"]) for row in rows)
    return (
        f"{len(rows)} networks, {failed} with a failure.  {sum(e < EXACT for e in errors)} of {len(errors)} "
        f"equal their masked form to {EXACT:g} in both modes, {sum(abs(2 * x - 1) <= NEAR for x in left)} "
        f"of {len(left)} reach half of the FLOPs within {NEAR:.0%}, {sum(e < AGREES for e in agree)} of "
        f"{len(agree)} agree with onnxruntime to {AGREES:g}."
    )


if __name__ == "__main__":
    main()
