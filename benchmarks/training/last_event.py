"""Whether compensation helps at the last event of a training that is pruned: with it and without, in pairs.

::

    python -m benchmarks.training.last_event --markdown docs/results/compensation_training.md
    python -m benchmarks.training.last_event --smoke

A network is pruned while it is trained. Just after the last event it is compensated, on the first images of
the training set, for the network as it was just before; that one and the one without go on with the same
batches. Every run is a line of `--records` as soon as it is done; started again, the script goes on behind
it.
"""

import argparse
import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reprune
from benchmarks.training import fashion
from benchmarks.training.accuracy import spread
from examples import fashion_mnist
from reprune.bench.markdown import line, table
from reprune.files.atomic import write_text
from reprune.modules.copying import whole_copy

IMAGES, FLOPS = 256, 0.4
REST = (0, 1, 3)
"""Epochs after the last event."""
EVENTS = (1, 3)
Result = dict[str, float]


class Run(NamedTuple):
    """One line of the records."""

    events: int
    rest: int
    seed: int


class Training:
    """One that is pruned, up to its last event and beyond."""

    def __init__(self, data: fashion.Fashion, run: Run) -> None:
        self.data, self.run, self.epochs = data, run, data.until + run.rest
        self.generator = torch.Generator().manual_seed(run.seed)

    def rate(self, step: float) -> float:
        """One cycle over all steps: up to 0.1 along a cosine, and down to 0."""
        steps = self.epochs * -(-self.data.images // self.data.batch)
        warm = 0.15 * steps
        if step < warm:
            return 0.1 * (1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * step / warm)) / 2)
        return 0.1 * (1 + math.cos(math.pi * (step - warm) / (steps - warm))) / 2 + 1e-6

    def epoch(self, model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
        """Train for one."""
        model.train()
        parts = torch.randperm(self.data.images, generator=self.generator).split(self.data.batch)
        for step, part in enumerate(parts, number * len(parts)):
            for group in optimizer.param_groups:
                group["lr"] = self.rate(step)
            x = self.data.sized(fashion_mnist.augmented(self.data.train[0][part], self.generator))
            loss = F.cross_entropy(model(x), self.data.train[1][part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def result(self, images: Tensor) -> Result:
        """Train and prune, compensate a copy, and train both to the end."""
        data, until = self.data, self.data.until
        model = data.network(self.run.seed)
        optimizer = torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        how = {"flops": FLOPS, "seed": self.run.seed, "mode": "mask"}  # before the event it has its full size
        interval = until // self.run.events
        pruner = reprune.Pruner(model, optimizer, data.example, interval=interval, until=until, **how)
        for number in range(until):
            self.epoch(model, optimizer, number)
            dense = whole_copy(model)
            pruner.step()
        plan = pruner.finalize()
        found = {"before": data.accuracy(dense), "pruned": data.accuracy(model)}
        other, its_optimizer = copy.deepcopy((model, optimizer))
        reprune.compensate(dense, other, plan, images)
        found |= {"compensated": data.accuracy(other), "flops": plan.flops[1] / plan.flops[0]}
        state = self.generator.get_state()
        pairs = {"plain end": (model, optimizer), "compensated end": (other, its_optimizer)}
        for name, (network, its) in pairs.items():
            self.generator.set_state(state)
            for number in range(until, self.epochs):
                self.epoch(network, its, number)
            found[name] = data.accuracy(network)
        return found


def page(records: dict[Run, Result], budget: str) -> str:
    """The table."""
    return "\n".join(
        [
            "# Compensation at the last event of a training",
            "",
            f"`python -m benchmarks.training.last_event`: {budget}. Pruned to {100 * FLOPS:.0f} % of the "
            "FLOPs while it is trained, by events at equal distances, with the usual regrowth. After the "
            f"last one it is compensated, on {IMAGES} images of the training set, for the network just "
            "before; with it and without the training goes on with the same batches. Accuracy on the 10,000 "
            "test images in percent, mean ± standard deviation over the seeds; the difference is that of "
            "each pair.",
            "",
            "With one event or several, what compensation gains is gone after three epochs, and with several "
            "events after one. It is of use where nothing follows the last event, and there "
            '`reprune.compensate` does it: mode="mask", a copy of the model before the last `step()`, and '
            "`compensate(copy, model, pruner.finalize(), images)`. So `Pruner` has no such argument.",
            "",
            *rows(records),
            "",
        ]
    )


def rows(records: dict[Run, Result]) -> Iterator[str]:
    """One row for each number of events and of epochs after the last one."""
    ways = ("before", "pruned", "compensated", "plain end", "compensated end")
    heads = ("before the last event", "pruned", "compensated", "end without", "end with")
    yield from table(("events", "epochs after", "seeds", *heads, "difference"))
    for events in EVENTS:
        for rest in REST:
            found = [r for run, r in records.items() if run[:2] == (events, rest)]
            if found:
                cells = [spread([r[way] for r in found]) for way in ways]
                differences = [r["compensated end"] - r["plain end"] for r in found]
                each = ", ".join(f"{x:+.2f}" for x in differences)
                last = f"{mean(differences):+.2f} ({each})"
                yield line(str(events), str(rest), str(len(found)), *cells, last)


def main() -> None:
    """Make all runs that are not in the records yet, and write the page."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    fashion.arguments(parser, images=4000, side=14, epochs=12, until=12, width=24, stride=2, batch=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--records", type=Path, default=Path("last_event.jsonl"), metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = fashion.parsed(parser)
    options.until = 3 if options.smoke else options.until
    data = fashion.Fashion(options)
    budget = (
        f"ResNet-{8 if data.smoke else 20} with {data.width} to {4 * data.width} channels; {data.images:,} "
        f"training images of {data.side} x {data.side}, the last event after epoch {data.until}, batches of "
        f"{data.batch}"
    )
    records: dict[Run, Result] = {}
    if options.records.exists():
        lines = map(json.loads, options.records.read_text().splitlines())
        records = {Run(*each["run"]): each["result"] for each in lines if each["budget"] == budget}
    for seed in options.seeds[: 1 if options.smoke else None]:
        for run in (Run(events, rest, seed) for events in EVENTS for rest in REST):
            if run not in records:
                records[run] = Training(data, run).result(data.sized(data.train[0][:IMAGES]))
                with options.records.open("a") as file:
                    file.write(json.dumps({"run": run, "budget": budget, "result": records[run]}) + "\n")
                print(run, records[run], flush=True)
    if options.markdown is None:
        print(page(records, budget))
    else:
        write_text(options.markdown, page(records, budget))


if __name__ == "__main__":
    main()
