"""The page of the zoo: a table for each kind of network, a sentence above it, what failed below."""

from __future__ import annotations

import re
from typing import Any

from benchmarks.zoo.networks import OTHERS
from reprune.bench import markdown

HEADS = {
    "classifier": "Classifiers of torchvision",
    "detector": "Detectors of torchvision",
    "segmenter": "Segmenters of torchvision",
    "video": "Video networks of torchvision",
    "timm": "Networks of timm",
    "transformers": "Networks of transformers",
    "smp": "Networks of segmentation_models_pytorch",
    "yolo": "Detectors like YOLO",
}
EXACT, AGREES, NEAR = 1e-9, 1e-4, 0.02
NAMES = {"peer": "Torch-Pruning"}
TERMINAL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours and the like, which some libraries put into their error messages."""


def cells(row: dict[str, Any]) -> list[str]:
    """The columns after the name."""

    def show(key: str, form: str) -> str:
        return form.format(row[key]) if key in row else "-"

    latency = row.get("latency", {})
    if row["kind"] in OTHERS:
        return [
            show("parameters", "{:,}"),
            show("channels", "{:.1%}") + " / " + show("channels_internal", "{:.1%}"),
            show("flops", "{:.1%}") + " / " + show("flops_without_heads", "{:.1%}"),
            show("reached", "{:.4f}") + " / " + show("reached_internal", "{:.4f}"),
            show("error", "{:.0e}") + " / " + show("error_training", "{:.0e}"),
            show("onnx", "{:.0e}"),
            show("plan_s", "{:.1f} s"),
            show("peer_reached", "{:.4f}"),
            show("peer_error", "{:.0e}"),
            show("peer_s", "{:.1f} s"),
        ]
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


BESIDE = (
    *TITLES[:3],
    "prunable FLOPs: all / heads stay",
    "FLOPs at 0.5: all / internal",
    *TITLES[5:7],
    "plan",
    "Torch-Pruning: FLOPs",
    "Torch-Pruning: difference",
    "Torch-Pruning: time",
)
"""The titles of `OTHERS`, which are measured beside Torch-Pruning."""
ABOUT_OTHERS = (
    "The networks below are also pruned by Torch-Pruning, in the way of its examples: half of the channels "
    "of each layer, output layers keep theirs, `num_heads` names queries, keys and values, and attributes "
    "are set afterwards. That leaves about a quarter of the FLOPs, so the FLOPs are not to be compared. Its "
    "difference is that of the first output from the dense network in float64 with zeros in place of all "
    "parts of parameters that left, relative to the largest value. Where channels leave that a LayerNorm or "
    "GroupNorm normalises over, it cannot be 0: their mean and variance change, and training afterwards is "
    "to mend that; with reprune the channels that left count as zeros in the norms. A dash says that it "
    "failed, or that what is left does not run, for the reason below the table."
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
    told = False
    for kind, head in HEADS.items():
        mine = sorted((row for row in rows.values() if row["kind"] == kind), key=name_of)
        if mine:
            beside = kind in OTHERS
            if beside and not told:
                told, lines = True, [*lines, "## Beside Torch-Pruning", "", ABOUT_OTHERS, ""]
            lines += [f"## {head}", "", (summary_beside if beside else summary)(mine), ""]
            lines += [OTHERS[kind].ABOUT, ""] if beside else []
            titles = BESIDE if beside else TITLES
            lines += markdown.table(titles, [(row["name"], *cells(row)) for row in mine])
            lines += [
                "",
                *(f"- {row['name']}: {row['out_of_reach']}" for row in mine if "out_of_reach" in row),
            ]
            problems = [(row["name"], *item) for row in mine for item in row["problems"].items()]
            lines += [
                *(f"- {name}, {NAMES.get(column, column)}: {plain(text)}" for name, column, text in problems),
                "",
            ]
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


def summary_beside(rows: list[dict[str, Any]]) -> str:
    """How many networks reprune pruned, refused or got wrong, and Torch-Pruning beside it."""
    pruned = [row for row in rows if row.get("channels", 0) > 0 and "error" in row]
    wrong = [row for row in pruned if max(row["error"], row["error_training"]) >= EXACT]
    half = [row for row in pruned if row.get("reached", 1.0) <= (1 + NEAR) / 2]
    peers = [row for row in rows if "peer" in row["columns"]]
    ran = [row for row in peers if "peer_error" in row]
    alike = [row for row in ran if row["peer_error"] < EXACT and row["peer_reached"] < 1]
    nothing = sum(row["peer_reached"] == 1 for row in ran)
    agree = [row["onnx"] for row in rows if "onnx" in row]
    exact = len(pruned) - len(wrong)
    return (
        f"{len(rows)} networks.  reprune: {len(pruned)} pruned, of which {exact} equal their masked form to "
        f"{EXACT:g} in both modes; {len(rows) - len(pruned)} refused or failed, {len(wrong)} wrong; "
        f"{len(half)} reach half of the FLOPs within {NEAR:.0%}; {sum(e < AGREES for e in agree)} of "
        f"{len(agree)} agree with onnxruntime to {AGREES:g}.  Torch-Pruning: {len(ran)} of {len(peers)} ran, "
        f"of which {len(alike)} equal the dense network without what left to {EXACT:g} and {nothing} lost "
        "nothing."
    )
