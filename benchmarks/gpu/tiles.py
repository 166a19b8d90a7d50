"""Tiles of Ward's scan that were tried for float64, and which are used: registers, stack, traffic, time.

Run: python -m benchmarks.gpu.tiles --simulator DIR [--points 512] [--write FILE]

Every tile is compiled for sm_80, sm_90 and sm_100 and runs one channel of heavy-tailed points in a PTX
simulator (sm_90). Time is what an H100 full of such channels is predicted to need for each, as predict.py
does: instructions at the rate of its schedulers (float64 every other cycle), or bytes at that of L2 and
memory, of which a state that is larger than L2 uses both. Nothing here was measured.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.binaries import report_of
from benchmarks.gpu.predict import L2, L2_BYTES, MEMORY, RATE, SCHEDULERS
from benchmarks.gpu.simulated import Kernel, simulator, ward
from benchmarks.gpu.variants import CHIPS, ward_variant
from benchmarks.pages import replace_table
from reprune.bench.markdown import line, table
from reprune.clustering import reference
from reprune.kernels.launch import ward_shape

TILES = ((2, 32), (4, 32), (8, 32), (2, 64), (4, 64))
TARGETS = ("sm_80", "sm_90", "sm_100")
HEAD = ("d", "tile", "registers", "stack", "warps", "M instructions", "MB read and written", "us")


def points_of(n: int, d: int) -> np.ndarray:
    points = np.random.default_rng(0).standard_t(3, (n, d))
    points -= points.mean(axis=0)
    return (points / np.abs(points).max()).astype(np.float32)


def seconds(instructions: float, moved: float, warps: int, n: int, d: int) -> float:
    """Of one channel, on a chip that has as many as fit."""
    state = 132 * warps * n * ((d + 4) * 8 + 20)
    hits = min(1.0, L2_BYTES / state)
    return max(instructions / (SCHEDULERS * RATE), moved * (hits / L2 + (1 - hits) / MEMORY))


def row(ptxsim, d: int, n: int, tile: tuple[int, int]) -> tuple[str, ...]:  # type: ignore[no-untyped-def]
    R, C = tile
    variant = ward_variant(d, torch.float64, R=R, C=C)
    reports = [report_of(variant, target, variant.compile(target)) for target in TARGETS]
    points = points_of(n, d)
    stats, [(_, tops)] = ward(Kernel(ptxsim, variant), [points])
    heights = reference.linkage(points.astype(np.float64), "ward")[:, 2]
    if not np.allclose(np.sort(tops[1:]), heights, rtol=0, atol=1e-12 * heights.max()):
        raise ValueError(f"d = {d}, tile {tile}: the heights are wrong")
    work = max(stats.warp_insts, 2 * stats.classes.get("f64", 0))
    moved, warps = 32 * stats.global_sectors, reports[1].warps
    shapes = {target: ward_shape(d, torch.float64, CHIPS[target]) for target in TARGETS}
    used = [(shapes[target]["R"], shapes[target]["C"]) == tile for target in TARGETS]
    registers = [
        f"**{report.registers}**" if own else str(report.registers)
        for own, report in zip(used, reports, strict=True)
    ]
    return (
        str(d),
        f"{R} x {C}",
        " · ".join(registers),
        " · ".join(str(report.stack) for report in reports),
        str(warps),
        f"{stats.warp_insts / 1e6:.2f}",
        f"{moved / 1e6:.1f}",
        f"{1e6 * seconds(work, moved, warps, n, d):.2f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulator", type=Path, required=True, metavar="DIR", help="folder of ptxsim.py")
    parser.add_argument("--points", type=int, default=512, help="of the channel (default: 512)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this page")
    arguments = parser.parse_args()
    ptxsim = simulator(arguments.simulator)
    lines = table(HEAD, (), "rlll" + "r" * (len(HEAD) - 4))
    print(*lines, sep="\n")
    for d in (4, 9, 25):
        for tile in TILES:
            lines.append(line(*row(ptxsim, d, arguments.points, tile)))
            print(lines[-1], flush=True)
    if arguments.write is not None:
        replace_table(arguments.write, "tiles.py", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
