"""How long the selection of whole networks would take on an H200, predicted from a PTX simulator's counts.

Run: python -m benchmarks.gpu.predict --simulator DIR [--kind normal]

Every kernel of linkage and cut is compiled for sm_90 and run in the simulator on two channels of each shape,
and its labels are checked against the C++ core's (half of the filters stay). benchmarks/gpu/cycles.py turns
the counts into time; its coefficients are fitted to what an earlier edition and a prototype took on an H200.
Groups of layers follow each other as kernels/parts.py says, and their picks are made beside the next ones:
the coverage kernel is run on whole layers, its picks are checked, and benchmarks/gpu/picks.py turns its
counts into time. The rest is what was measured of a selection of ResNet-50, by the number of kernels: the
sort of 1x1 kernels 0.25 ms, the index 0.08 ms, of which today's reads and writes twice as many sectors. A
launch costs 3 us beside its work. When the host launches each group is what benchmarks/gpu/host.py found
(--host); without it, nothing is assumed to wait for the host.
"""

import argparse
import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.gpu import cycles, picks
from benchmarks.gpu.binaries import report_of
from benchmarks.gpu.cycles import Launch
from benchmarks.gpu.picks import Pick
from benchmarks.gpu.simulated import Device, cover, simulator
from benchmarks.gpu.variants import cuda_variants, label_variant, line_variant, ward_variant
from reprune.bench import shapes
from reprune.bench.shapes import Layer
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers
from reprune.files.atomic import write_text
from reprune.kernels.launch import SCRATCH
from reprune.kernels.parts import Group, Shape, bytes_of, divide
from reprune.kernels.select import Layer as Selected
from reprune.kernels.select import cluster_layers

CHIP = (9, 0)
LAUNCH = 3e-6
PICK = picks.fit(picks.MEASURED)
SORT, INDEX = 58e-12, 2 * 14e-12  # seconds a kernel, of 4.3 and 5.6 million
AIMS = {"resnet50": 4e-3, "vgg16": 4e-3, "2048x2048x3x3": 35e-3}


Launches = list[tuple[float, float]]


@dataclass(frozen=True)
class Stage:
    """A group of layers: seconds of each step."""

    layers: str
    sort: float
    link: float
    cut: float
    index: float
    picks: float
    """Of the layer that takes longest."""


def cases() -> dict[str, list[Layer]]:
    """Of resnet50 the layers that scope="internal" decides about, and all; of vgg16 those are all."""
    resnet = shapes.network("resnet50")
    inner = [layer for layer in resnet if layer.name.endswith((".conv1", ".conv2"))]
    return {
        "resnet50": inner,
        "vgg16": shapes.network("vgg16"),
        "2048x2048x3x3": [Layer("layer", 2048, 2048, (3, 3))],
        "512x512x3x3": [Layer("layer", 512, 512, (3, 3))],
        "resnet50, all convolutions": resnet,
    }


class Counter:
    """Counts of shapes, each found once."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.ptxsim, self.kind = simulator(folder), kind
        self.found: dict[tuple[int, int], tuple[Launch, Launch]] = {}
        self.picked: dict[tuple[int, int, int], Pick] = {}
        variants, missing = cuda_variants()
        if missing:
            raise FileNotFoundError(missing)
        binaries = {variant.name: variant.compile("sm_90") for variant in variants}
        self.coverage = [
            (self.ptxsim.Module(binary.assembly), binary.kernel)
            for binary in (binaries["cover index"], binaries["cover random"])
        ]

    def table(self, channels: int, layer: Layer) -> npt.NDArray[np.float32]:
        """Draw kernels of some channels, [channels, O, d]."""
        rng = np.random.default_rng(0)
        shape = (channels, layer.O, layer.d)
        drawn = rng.standard_t(3, shape) if self.kind == "heavy" else rng.standard_normal(shape)
        return drawn.astype(np.float32)

    def pick(self, layer: Layer) -> Pick:
        """A pick of the whole layer."""
        key = layer.O, layer.I, layer.d
        if key not in self.picked:
            (own,) = select_layers([LayerProblem("0", (self.table(layer.I, layer),), layer.keep)])
            given = [own.labels], [layer.keep], [None], 0
            (_, stats), ((order, gains),) = cover(self.ptxsim, self.coverage, *given, race=False)
            if not (np.array_equal(order, own.order) and np.array_equal(gains, own.gains)):
                raise ValueError(f"{layer}: the picks are wrong")
            reads = picks.reads_in_turn(own.labels, order)
            self.picked[key] = Pick(layer.O, layer.I, reads, stats.warp_insts / layer.keep)
        return self.picked[key]

    def layer(self, layer: Layer) -> tuple[Launch, Launch]:
        """Linkage and cut of one channel of the layer."""
        key = layer.O, layer.d
        if key not in self.found:
            table = self.table(2, layer)
            with Device(self.ptxsim) as device:
                (clusters,) = cluster_layers([([torch.from_numpy(table)], layer.keep)])
            (own,) = select_layers([LayerProblem("0", (table,), layer.keep)])
            if not np.array_equal(clusters.labels.T, own.labels) or own.heights[0] != clusters.heights[0]:
                raise ValueError(f"{layer}: the labels are wrong")
            linked = [stats for stats in device.stats if stats.kernel != "label_kernel"]  # type: ignore[attr-defined]
            variant = line_variant(layer.O) if layer.d == 1 else ward_variant(layer.d, layer.O)
            label = label_variant(layer.O)
            state = bytes_of(layer.O, layer.d) - 8 * layer.d * (layer.O + 2)
            self.found[key] = (
                _launch(variant, linked, layer.O, state),
                _launch(label, device.stats[-1:], layer.O, 16 * layer.O),
            )
        return self.found[key]


def _launch(variant, stats, points: int, state: float) -> Launch:  # type: ignore[no-untyped-def]
    """Of two problems that were counted."""
    warps = variant.threads // 32
    return Launch(
        points=points,
        problems=1,
        warps=warps,
        resident=report_of(variant, "sm_90", variant.compile("sm_90")).warps,
        instructions=sum(one.warp_insts for one in stats) / 2,
        f64=sum(one.classes.get("f64", 0) for one in stats) / 2,
        sectors=sum(one.global_sectors for one in stats) / 2,
        barriers=sum(one.barriers for one in stats) / 2 if warps > 1 else 0,
        state=state,
    )


def together(launches: list[tuple[Launch, int]], coefficients: npt.NDArray[np.float64]) -> float:
    """Seconds of problems of several sizes in one launch."""
    total = sum(count for _, count in launches)
    longest = work = 0.0
    for one, count in launches:
        own = dataclasses.replace(one, problems=total)
        time = float(own.features() @ coefficients) / cycles.HERTZ
        longest = max(longest, time)
        work += time * count / cycles.MULTIPROCESSORS / own.together
    return max(longest, work)


def stages(
    layers: list[Layer], counter: Counter, coefficients: npt.NDArray[np.float64], launches: Launches
) -> tuple[list[Stage], float, float]:
    """The stages in order, when the last pick is made, and how long the GPU had waited for the host by then.

    `launches`: when the host made the first and the last launch of each group, or nothing.
    """
    selected = [Selected([torch.empty(one.I, one.O, one.d, device="meta")], one.keep) for one in layers]
    division = divide(
        tuple(Shape.of(one.tables[0]) for one in selected),
        tuple(one.filters - one.keep for one in selected),
        tuple(one.urgency for one in selected),
        SCRATCH,
        CHIP,
    )
    found, clock, end, waited = [], 0.0, 0.0, 0.0
    for group, (first, last) in zip(
        division.groups, launches or [(0.0, 0.0)] * len(division.groups), strict=True
    ):
        stage = _stage(group, [layers[k] for k in group.tables], counter, coefficients)
        waited += max(0.0, first - max(clock, end))
        clock = max(clock, first) + stage.sort + stage.link + stage.cut
        waited += max(0.0, last + stage.cut - clock)
        clock = max(clock, last + stage.cut)
        end = max(end, clock + stage.index + stage.picks)
        found.append(stage)
    return found, max(end, clock) + 3 * LAUNCH, waited  # small results to the host


def _stage(
    group: Group, layers: list[Layer], counter: Counter, coefficients: npt.NDArray[np.float64]
) -> Stage:
    counts = [(counter.layer(one), one.I) for one in layers]
    kernels = sum(one.I * one.O for one in layers)
    rooms = {chunk_rooms[1] for chunk in group.chunks for chunk_rooms in chunk.rooms}
    phases = 1 if group.d == 1 else 2
    link = together([(linked, I) for (linked, _), I in counts], coefficients)
    cut = together([(cut, I) for (_, cut), I in counts], coefficients)
    return Stage(
        layers=f"{len(layers)} of {'x'.join(map(str, layers[0].side))}, to {group.points} filters",
        sort=SORT * kernels + LAUNCH * (1 + 2 * len(rooms)) if group.d == 1 else 0.0,
        link=link + 2 * phases * len(group.chunks) * LAUNCH,
        cut=cut + LAUNCH,
        index=INDEX * kernels + LAUNCH,
        picks=max(one.keep * picks.seconds(counter.pick(one), PICK) for one in layers) + LAUNCH,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulator", type=Path, required=True, metavar="DIR", help="folder of ptxsim.py")
    parser.add_argument(
        "--kind", choices=("normal", "heavy"), default="heavy", help="weights (default: heavy)"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has this in it")
    parser.add_argument(
        "--host", type=Path, metavar="FILE", help="of one case: what benchmarks.gpu.host wrote"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    arguments = parser.parse_args()
    try:
        counter = Counter(arguments.simulator, arguments.kind)
    except FileNotFoundError as error:
        sys.exit(f"benchmarks.gpu.predict: {error}")
    coefficients = cycles.fit(cycles.measured())
    host = {} if arguments.host is None else json.loads(arguments.host.read_text())
    rows = {}
    for name, layers in cases().items():
        if arguments.only not in name:
            continue
        launches = host["groups"] if host.get("case") == name else []
        found, total, waited = stages(layers, counter, coefficients, launches)
        aim = f", aim {AIMS[name] * 1e3:g} ms" if name in AIMS else ""
        print(f"\n{name}, {arguments.kind} weights: {total * 1e3:.2f} ms{aim}")
        steps = [one.name for one in dataclasses.fields(Stage)][1:]
        for stage in found:
            each = "  ".join(f"{step} {1e3 * getattr(stage, step):6.3f}" for step in steps)
            print(f"  {stage.layers:32} {each} ms")
        clustering = sum(stage.sort + stage.link + stage.cut for stage in found)
        after = clustering + sum(stage.index for stage in found) + max(stage.picks for stage in found)
        print(f"  clustering {1e3 * clustering:.2f} ms; {1e3 * after:.2f} ms if all picks came after it")
        if launches:
            print(f"  the GPU waits for the host {1e3 * waited:.2f} ms of it, {waited / total:.0%}")
        for layer in sorted(layers, key=lambda one: -one.keep * one.I)[:3]:
            pick = counter.pick(layer)
            print(
                f"  a pick of {layer.O} x {layer.I}: {pick.reads:.2f} reads in turn, "
                f"{pick.instructions:.0f} instructions, {1e6 * picks.seconds(pick, PICK):.2f} us"
            )
        each = [dataclasses.asdict(stage) for stage in found]
        rows[name] = {"seconds": total, "waited": waited, "stages": each}
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(rows))


if __name__ == "__main__":
    main()
