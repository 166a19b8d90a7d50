"""Selection on the GPU: layers and whole networks, beside the C++ core and scipy, in one run.

Run: python -m benchmarks.gpu.throughput [--seconds 120] [--json FILE] [--quick]

Every answer is checked before it is timed (see reprune.bench.device). Times of the GPU are medians between
two events on its stream, warm, three sets of inputs in turn. "of peak": the float32 instructions that the
distances of Ward in rounds need (pairs counted on a sample of channels by chip.py) / what the chip could
issue in that time at its measured rate of multiply-adds.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

import reprune
from reprune.bench import machine, selection, shapes
from reprune.bench.report import GPU
from reprune.bench.shapes import Layer
from reprune.cli.console import count, duration
from reprune.clustering import backends
from reprune.files.atomic import write_text

LAYERS = (*shapes.LAYERS, Layer("layer", 2048, 2048, (3, 3)), Layer("layer", 512, 512, (7, 7)))
SAMPLE = 2  # channels per shape whose pairs are counted


def instructions(layers):
    """float32 instructions of all pairs that are evaluated, of normal weights; 0 for 1 x 1 kernels."""
    from benchmarks.gpu import chip

    rng = np.random.default_rng(0)
    per_shape, total = {}, 0.0
    for layer in layers:
        key = layer.O, layer.d
        if layer.d > 1 and key not in per_shape:
            pairs = [
                chip.pair_evaluations(rng.normal(size=(layer.O, layer.d)), layer.O - layer.keep)
                for _ in range(SAMPLE)
            ]
            per_shape[key] = np.mean(pairs) * chip.operations_per_pair(layer.d)
        total += layer.I * per_shape.get(key, 0.0)
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="about what all may take (default: 120)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rows")
    parser.add_argument("--quick", action="store_true", help="tiny shapes: a rehearsal, not a result")
    arguments = parser.parse_args()
    try:
        backends.resolve("triton")
    except reprune.BackendUnavailable as error:
        sys.exit(f"benchmarks.gpu.throughput: {error}")
    cases = [(str(layer), [layer]) for layer in (shapes.QUICK_LAYERS if arguments.quick else LAYERS)]
    if shapes.networks_known() and not arguments.quick:
        cases += [(name, shapes.network(name)) for name in shapes.NETWORKS]
    facts = machine.facts()
    print(*(f"{what}: {value}" for what, value in facts.items()), sep="\n")
    rate = None
    if not backends.interpreted():
        from benchmarks.gpu import chip

        rate = chip.multiply_adds_per_second()
        print(f"measured: {rate / 1e12:.2f} T multiply-adds/s in float32")
    cores, rows = machine.cores(), []
    for name, layers in cases:
        print(f"\n{name}")
        measured = selection.measure(name, layers, arguments.seconds / len(cases), cores, "cuda")
        (gpu,) = (row for row in measured if row.who == GPU)
        for row in measured:
            line = f"  {row.who:14} {duration(row.seconds):>9}  {count(row.problems_per_s):>9} problems/s"
            line += f"  {row.seconds / gpu.seconds:8.3g} times triton's  {row.runs}x {row.part}"
            if row is gpu and rate and any(layer.d > 1 for layer in layers):
                line += f"  {100 * instructions(layers) / (gpu.seconds * rate):.0f} % of peak"
            print(f"{line}  {row.checked}")
        rows += [vars(row) for row in measured]
    if arguments.json is not None:
        write_text(arguments.json, json.dumps({"facts": facts, "rate": rate, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
