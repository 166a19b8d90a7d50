"""The zoo table: torchvision's networks, 60 of timm, and 40 others beside Torch-Pruning. Written to
docs/results/zoo.md.

::

    python -m benchmarks.zoo                                # hours; goes on where it was stopped
    python -m benchmarks.zoo --suite timm --columns exact
    python -m benchmarks.zoo --only resnet50 vgg16_bn --columns latency
    python -m benchmarks.zoo --suite transformers --columns exact peer
    python -m benchmarks.zoo --table                        # only writes the table again

Each network, with random weights, is measured in a process of its own with a time limit, and its row
appended to a file of JSON lines; what is there is not measured again (`--again` measures it anew).

prunable    fraction of the channels that may leave, and of the FLOPs in layers that can shrink
reached     FLOPs left by make_plan(flops=0.5, scope="all", layers="all", rule="uniform"); where its error
            says that more must stay, that much
error       30 % of every group dropped at random, in float64: largest difference between the pruned network
            and the full one with the consumers' input slices zeroed (with zeros in all tensors of what left,
            where a norm over channels loses some), relative to the largest output; in evaluation, and in
            training mode
ONNX        the network so planned, in float32: onnxruntime against eager, relative
latency     time of the full network over that of the planned one, batch 1 and 16, in turns, channels_last
plan        time of make_plan, graph and selection, on the wall and of the processor; peak, in a call of its
            own: the model's memory and what make_plan allocates at most besides, over the model's (of small
            ones, several times)
peer        the same network and half of its channels by Torch-Pruning (its BasePruner, GroupMagnitude, local,
            output layers ignored, heads named as in its examples): whether it and what it leaves runs, FLOPs
            left, and the largest difference of the first output from the dense network in float64 with zeros
            in place of every part of a parameter that left, relative to the largest value
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.zoo import networks
from benchmarks.zoo.networks import OTHERS
from benchmarks.zoo.page import HEADS, cells, table
from reprune.files.atomic import write_text

ROOT = Path(__file__).parents[2]
COLUMNS = ("exact", "onnx", "latency", "peer")
OF_THE_PLAN = {"reached", "reached_internal", "out_of_reach"}
PEER_SECONDS = 180
"""Torch-Pruning's time for one network, as on some of them it takes any."""


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    """{kind/name: row}; a later line for a network adds its columns, and what it says replaces the old."""
    rows: dict[str, dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        new = json.loads(line)
        key = f"{new['kind']}/{new['name']}"
        old = rows.setdefault(key, {"columns": [], "problems": {}})
        again = {*new["columns"]} if new["columns"] == ["peer"] else {"plan", "process", *new["columns"]}
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
    where = "peer" if columns == ["peer"] else "process"
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return {**failed, "problems": {where: f"not done after {timeout} s"}}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return {**failed, "problems": {where: f"exit status {done.returncode}: {last}"[:500]}}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", choices=("torchvision", "timm", *OTHERS, "all"), default="all")
    parser.add_argument("--kind", nargs="+", choices=HEADS, help="only networks of these kinds")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these networks")
    parser.add_argument("--again", action="store_true", help="measure those that have a row too")
    parser.add_argument(
        "--columns",
        nargs="+",
        choices=COLUMNS,
        default=["exact", "onnx", "peer"],
        metavar="WHAT",
        help=f"besides the plan: {', '.join(COLUMNS)} (latency is slow); default: exact onnx peer",
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
        columns = [c for c in columns if c != "peer" or network.kind in OTHERS]
        wanted = (not arguments.only or network.name in arguments.only) and (
            not arguments.kind or network.kind in arguments.kind
        )
        if not wanted or not columns:
            continue
        alone = [c for c in columns if c == "peer"]  # in a process that may be stopped
        for together in ([c for c in columns if c != "peer"], alone):
            if together:
                seconds = min(arguments.timeout, PEER_SECONDS) if together == alone else arguments.timeout
                row = measured(network, together, seconds)
                with arguments.rows.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(network.name, cells(row), *row["problems"].items(), flush=True)
    write_text(arguments.markdown, table(rows_of(arguments.rows)))


if __name__ == "__main__":
    main()
