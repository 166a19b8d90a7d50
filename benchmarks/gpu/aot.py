"""Every kernel of the GPU path compiled without a GPU or driver: what it takes of a multiprocessor.

Run: python -m benchmarks.gpu.aot [--target sm_90 ...] [--only TEXT ...] [--emit DIR] [--json FILE] [--write
FILE]

Triton's kernels for sm_80, sm_90, sm_100 and gfx942, the CUDA kernels (where nvcc is) for the first three.
Columns: registers of a thread; bytes of stack (spills included); bytes of static shared memory; barriers, in
the PTX; warps of a multiprocessor that have room for their registers; "per pair": instructions of a lane for
one evaluation of Ward's cost in the inner loop of the scan, loads and addresses included, counted in the
machine code. `--emit` leaves the PTX of each variant and a JSON beside it that says how it is launched;
`--write` puts the table, a line per variant, into a page (docs/results/gpu.md).
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu.binaries import Report, report_of
from benchmarks.gpu.variants import TARGETS, Variant, cuda_variants, triton_variants
from benchmarks.pages import replace_table
from reprune.bench.markdown import line, table
from reprune.files.atomic import write_text

HEAD = ("variant", "target", "registers", "stack", "shared", "barriers", "warps", "per pair")


def cells(report: Report) -> tuple[str, ...]:
    numbers = (report.registers, report.stack, report.shared, report.barriers, report.warps)
    per_pair = "" if report.per_pair is None else f"{report.per_pair:.1f}"
    return (report.variant, report.target, *map(str, numbers), per_pair)


def page(reports: list[Report]) -> str:
    """A line per variant, a column per target."""
    targets = list(dict.fromkeys(report.target for report in reports))
    rows = []
    for variant in dict.fromkeys(report.variant for report in reports):
        own = {report.target: report for report in reports if report.variant == variant}
        numbers = [" · ".join(filter(None, cells(own[t])[2:])) if t in own else "" for t in targets]
        rows.append((variant, *numbers))
    return "\n".join(table(("variant", *targets), rows)) + "\n"


def emit(folder: Path, variant: Variant, target: str, assembly: str, report: Report) -> None:
    """The assembly of a variant, and in a JSON how it is launched."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{variant.name}-{target}".replace(" ", "-")
    suffix = "ptx" if target.startswith("sm_") else "amdgcn"
    write_text(folder / f"{name}.{suffix}", assembly)
    launch = {"kernel": report.kernel, "target": target, **variant.launch(target), "report": asdict(report)}
    write_text(folder / f"{name}.json", json.dumps(launch, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS), help="default: all")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="variants whose names have one of these")
    parser.add_argument("--emit", type=Path, metavar="DIR", help="write PTX and launch data there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this page")
    arguments = parser.parse_args()
    cuda, reason = cuda_variants()
    if reason:
        print(f"benchmarks.gpu.aot: the coverage kernels are left out: {reason}", file=sys.stderr)
    print(*table(HEAD, (), "ll" + "r" * (len(HEAD) - 2)), sep="\n")
    reports = []
    for variant in (*triton_variants(), *cuda):
        if arguments.only and not any(text in variant.name for text in arguments.only):
            continue
        for target in arguments.target:
            if target not in variant.targets:
                continue
            binary = variant.compile(target)
            reports.append(report_of(variant, target, binary))
            print(line(*cells(reports[-1])), flush=True)
            if arguments.emit is not None:
                emit(arguments.emit, variant, target, binary.assembly, reports[-1])
    if arguments.json is not None:
        write_text(arguments.json, json.dumps([asdict(report) for report in reports], indent=2) + "\n")
    if arguments.write is not None:
        replace_table(arguments.write, "aot.py", page(reports))


if __name__ == "__main__":
    main()
