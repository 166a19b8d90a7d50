"""How long the selection of whole networks would take on an H100, predicted from a PTX simulator's counts.

Run: python -m benchmarks.gpu.predict --simulator DIR [--kind normal]

Every kernel is compiled for sm_90 and run in the simulator: Ward and the cut on two channels of each shape,
the coverage kernels on the label table of each (from the C++ core; half of the filters stay). Times follow
from the warp instructions: 132 multiprocessors of four schedulers, each issuing in 60 % of the cycles at
1.755 GHz, float64 every other cycle; a warp stays on one scheduler, the longest first. Where L2 (5.5 TB/s;
50 MB, of a larger state it holds a part) and memory (3.35 TB/s) take longer for what Ward reads and writes,
that counts. A launch costs 3 us beside its work. torch.sort, for 1x1 kernels, cannot be run there: 10 warp
instructions for 32 numbers and digit are a guess. Nothing here was measured, and latency is left out, which
docs/results/gpu.md shows to matter.
"""

import argparse
import heapq
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from benchmarks.gpu.binaries import report_of
from benchmarks.gpu.simulated import Device, cover, simulator
from benchmarks.gpu.variants import cuda_variants, line_variant, ward_variant
from reprune.bench import shapes
from reprune.bench.shapes import Layer
from reprune.clustering.problem import LayerProblem
from reprune.clustering.selection import select_layers
from reprune.files.atomic import write_text
from reprune.kernels.parts import bytes_of
from reprune.kernels.select import cluster_layers

SCHEDULERS, RATE = 4 * 132, 0.6 * 1.755e9  # warp instructions a second of each
L2, L2_BYTES, MEMORY = 5.5e12, 50e6, 3.35e12
LAUNCH = 3e-6
SORT = 10 * 32 / 4  # warp instructions for 32 numbers: eight digits of four bits
AIMS = {"resnet50": 4.5e-3, "vgg16": 7e-3, "2048x2048x3x3": 55e-3}


@dataclass
class Load:
    """What the launches of one stage bring, over all layers."""

    warps: list[float] = field(default_factory=list)
    """Instructions of every warp."""
    bytes: float = 0.0
    launches: int = 0
    state: float = 0.0
    """Bytes in use at once."""

    def seconds(self) -> float:
        busy = [0.0] * SCHEDULERS
        for work in sorted(self.warps, reverse=True):
            heapq.heapreplace(busy, busy[0] + work)
        hits = min(1.0, L2_BYTES / max(self.state, 1.0))
        moving = self.bytes * (hits / L2 + (1 - hits) / MEMORY)
        return max(max(busy) / RATE, moving) + self.launches * LAUNCH


def cases() -> dict[str, list[Layer]]:
    """Of resnet50 the layers that scope="internal" decides about, and all; of vgg16 those are all."""
    resnet = shapes.network("resnet50")
    inner = [layer for layer in resnet if layer.name.endswith((".conv1", ".conv2"))]
    return {
        "resnet50": inner,
        "vgg16": shapes.network("vgg16"),
        "2048x2048x3x3": [Layer("layer", 2048, 2048, (3, 3))],
        "resnet50, all convolutions": resnet,
    }


class Counter:
    """Counts of shapes, each found once."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.ptxsim, self.kind = simulator(folder), kind
        variants, reason = cuda_variants()
        if reason:
            raise FileNotFoundError(reason)
        loaded = None
        self.modules = []
        for variant in (variants[2], variants[0]):
            binary = variant.compile("sm_90")
            loaded = loaded or self.ptxsim.Module(binary.assembly)
            self.modules.append((loaded, binary.kernel))
        self.found = {}  # type: ignore[var-annotated]

    def layer(self, layer: Layer):  # type: ignore[no-untyped-def]
        """Of a channel: warp instructions of each warp and bytes of Ward, warp instructions of each warp of
        the cut; of the layer: of every warp of the two coverage kernels; and how many channels' states are in
        use at once."""
        key = layer.O, layer.I, layer.d
        if key not in self.found:
            weight = self.draw((layer.O, layer.I, layer.d))
            table = torch.from_numpy(weight[:, : min(2, layer.I)]).transpose(0, 1)
            programs = len(table)
            with Device(self.ptxsim) as device:
                (clusters,) = cluster_layers([([table], layer.keep)])
            problem = LayerProblem("0", (weight.transpose(1, 0, 2),), layer.keep)
            few = LayerProblem("0", (table.numpy(),), layer.keep)
            answer, own = select_layers([problem, few])
            if not np.array_equal(clusters.labels.T, own.labels) or own.heights[0] != clusters.heights[0]:
                raise ValueError(f"{layer}: the labels are wrong")
            linked = [stats for stats in device.stats if stats.kernel != "label_kernel"]
            label = device.stats[-1]
            variant = line_variant(layer.O) if layer.d == 1 else ward_variant(layer.d, layer.O)
            warps = variant.threads // 32
            room = 132 * report_of(variant, "sm_90", variant.compile("sm_90")).warps // warps
            work = sum(max(stats.warp_insts, 2 * stats.classes.get("f64", 0)) for stats in linked)
            table = np.asarray(answer.labels)
            covered, ((order, _),) = cover(
                self.ptxsim, self.modules, [table], [layer.keep], [None], 0, race=False
            )
            if not np.array_equal(order, answer.order):
                raise ValueError(f"{layer}: the picks are wrong")
            self.found[key] = (
                [work / programs / warps] * warps,
                32 * sum(stats.global_sectors for stats in linked) / programs,
                [label.warp_insts / label.warp_counts.size] * (label.warp_counts.size // programs),
                [one.warp_counts.ravel() for one in covered],
                room,
            )
        return self.found[key]

    def draw(self, shape: tuple[int, int, int]):  # type: ignore[no-untyped-def]
        rng = np.random.default_rng(0)
        drawn = rng.standard_t(3, shape) if self.kind == "heavy" else rng.standard_normal(shape)
        return drawn.astype(np.float32)


def stages(layers: list[Layer], counter: Counter) -> dict[str, Load]:
    """The load of every stage, in order."""
    found: dict[str, Load] = {}
    for layer in sorted(layers, key=lambda layer: (-layer.d, -layer.O)):
        ward_work, ward_bytes, cut_work, (index, picks), room = counter.layer(layer)
        # two phases, each with what it gives up, and a table of the problems
        own = found.setdefault(f"ward d={layer.d}", Load(launches=3 if layer.d == 1 else 5))
        own.warps += ward_work * layer.I
        own.bytes += ward_bytes * layer.I
        own.state = max(own.state, float(min(room, layer.I) * bytes_of(layer.O, layer.d)))
        if layer.d == 1:
            own = found.setdefault("sort", Load())
            own.warps += [SORT * layer.O / 32] * layer.I
            own.launches = 4 * len({(other.O - 1).bit_length() for other in layers if other.d == 1})
        own = found.setdefault("cut", Load())
        own.warps += [work for work in cut_work for _ in range(layer.I)]
        own.launches = 6
        found.setdefault("index", Load(launches=2)).warps += index.tolist()
        own = found.setdefault("picks", Load(launches=1))
        own.warps.append(float(picks.sum()))
    found["result"] = Load(launches=3)  # small results side by side, to the host
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--simulator", type=Path, required=True, metavar="DIR", help="folder of ptxsim.py")
    parser.add_argument(
        "--kind", choices=("normal", "heavy"), default="heavy", help="weights (default: heavy)"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name has this in it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all counts")
    arguments = parser.parse_args()
    try:
        counter = Counter(arguments.simulator, arguments.kind)
    except FileNotFoundError as error:
        sys.exit(f"benchmarks.gpu.predict: {error}")
    rows = {}
    for name, layers in cases().items():
        if arguments.only not in name:
            continue
        loads = stages(layers, counter)
        total = 0.0
        aim = f", aim {AIMS[name] * 1e3:g} ms" if name in AIMS else ""
        print(f"\n{name}, {arguments.kind} weights")
        for stage, load in loads.items():
            # all picks of a layer are one block's, on the four schedulers of one multiprocessor
            seconds = max(load.warps) / (4 * RATE) + LAUNCH if stage == "picks" else load.seconds()
            total += seconds
            print(f"  {stage:10} {sum(load.warps) / 1e6:10.1f} M warp instructions  {seconds * 1e3:8.3f} ms")
        print(f"  {'all':10} {total * 1e3:40.3f} ms{aim}")
        rows[name] = {stage: asdict(load) for stage, load in loads.items()} | {"seconds": total}
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(rows))


if __name__ == "__main__":
    main()
