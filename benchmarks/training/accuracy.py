"""What the criterion is worth on Fashion-MNIST: pruned while training, and in one shot.

::

    python -m benchmarks.training.accuracy --jobs 2 --markdown docs/results/fashion_mnist.md
    python -m benchmarks.training.accuracy --smoke

Every run is a line of `--records` as soon as it is done, and the page is written anew; started again, the
script goes on behind the last line. `--seeds 0` or `--shot-seeds 0` leaves out one of the two tables.

The network is that of examples/fashion_mnist.py; images are augmented, then averaged 2 x 2. All criteria are
given the same share of the FLOPs, the same rule for the number of channels of each layer (BatchNorm scales),
schedule, regrowth and budget; they differ in nothing but which filters of a layer stay (criteria.py).

The budget, a hundred epochs, is what 33 runs take in two hours on two cores. Far from the end of training
all lose more: with 60 % of the FLOPs gone REPrune (random ties) loses 1.9 points in 14 epochs of 10,000
images with 16 to 64 channels (a narrow network trained from scratch 1.7); with the images and channels of
today 0.54 in 22 epochs and 0.38 in 44 (three seeds).
"""

import argparse
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import torch

import reprune
from benchmarks.training import fashion
from benchmarks.training.criteria import OTHERS, OURS, choice, recompute_statistics
from reprune.bench.markdown import line, table
from reprune.files.atomic import write_text

TRAINED = (*OURS, "random", "L1 (Torch-Pruning)", "BN gamma")
IN_ONE_SHOT = (*OURS, *OTHERS)
Result = dict[str, float]


class Run(NamedTuple):
    """One line of the records."""

    part: str
    """"dense", "train" or "shot"."""
    criterion: str
    left: float
    """Share of the FLOPs ("train") or of the inner channels ("shot") that stays."""
    seed: int


class Bench:
    """The three kinds of runs."""

    def __init__(self, data: fashion.Fashion, records: Path) -> None:
        self.data, self.records = data, records

    def result(self, run: Run) -> Result:
        """Make one run."""
        return {"dense": self.dense, "train": self.trained, "shot": self.shot}[run.part](run)

    def dense(self, run: Run) -> Result:
        """Train the whole network, and keep it for the one-shot table."""
        model = self.data.network(run.seed)
        seconds = sum(spent.training for spent, _ in self.data.train_epochs(model, run.seed, None))
        reprune.save(model, self.dense_file(run.seed))
        return {"accuracy": self.data.accuracy(model), "seconds": seconds}

    def dense_file(self, seed: int) -> Path:
        """Where the dense network of `seed` is kept."""
        return self.records.with_suffix(f".dense{seed}.safetensors")

    def trained(self, run: Run) -> Result:
        """Prune while training."""
        model = self.data.network(run.seed)
        how = {"flops": run.left, "seed": run.seed, **choice(run.criterion, model, run.seed)}
        epochs = list(self.data.train_epochs(model, run.seed, lambda m, o: self.data.pruner(m, o, **how)))
        plan = epochs[-1][1].finalize()
        events = sum(spent.event for spent, _ in epochs)
        seconds = sum(spent.training for spent, _ in epochs) + events
        shares = {"flops": plan.flops[1] / plan.flops[0], "events": events}
        return {"accuracy": self.data.accuracy(model), "seconds": seconds, **shares}

    def shot(self, run: Run) -> Result:
        """Prune a dense network once, recompute the statistics, train no more."""
        model = reprune.load(self.dense_file(run.seed), self.data.network(run.seed))
        inner = {n: m for n, m in model.named_modules() if n.endswith("conv1")}
        keep = {name: max(1, round(run.left * conv.out_channels)) for name, conv in inner.items()}
        how = choice(run.criterion, model, run.seed)
        plan = reprune.make_plan(model, self.data.example, keep=keep, seed=run.seed, **how)
        reprune.apply(plan, model)
        recompute_statistics(model, self.data.sized(self.data.train[0][:3000]).split(250))
        return {"accuracy": self.data.accuracy(model), "flops": plan.flops[1] / plan.flops[0]}

    def results(self, runs: list[Run], jobs: int) -> Iterator[tuple[Run, Result]]:
        """Make `runs`, `jobs` at a time, each on one thread; in the order in which they are done."""
        if jobs == 1:
            yield from ((run, self.result(run)) for run in runs)
            return
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(jobs, spawn, torch.set_num_threads, (1,)) as pool:
            made = {pool.submit(self.result, run): run for run in runs}
            yield from ((made[future], future.result()) for future in as_completed(made))


def all_runs(options: argparse.Namespace) -> Iterator[Run]:
    """In the order in which they are made: what can be compared comes together."""
    for seed in range(max(options.seeds, options.shot_seeds)):
        yield Run("dense", "dense", 1.0, seed)
    for seed in range(options.shot_seeds):
        yield from (Run("shot", name, left, seed) for left in (0.5, 0.25) for name in IN_ONE_SHOT)
    for seed in range(options.seeds):
        yield from (Run("train", name, left, seed) for left in (0.4, 0.25) for name in TRAINED)


def page(records: dict[Run, Result], budget: str) -> str:
    """The tables of the parts that there are runs of."""
    lines = [
        "# Fashion-MNIST: what the criterion is worth",
        "",
        f"`python -m benchmarks.training.accuracy`: {budget}. Accuracy on the 10,000 test images in "
        "percent, mean ± standard deviation over the seeds.",
        "",
    ]
    for part, section in (("train", while_training), ("shot", in_one_shot)):
        if any(run.part == part for run in records):
            lines += [*section(records), ""]
    return "\n".join(lines)


def while_training(records: dict[Run, Result]) -> Iterator[str]:
    """The first table."""
    dense = {run.seed: r for run, r in records.items() if run.part == "dense"}
    yield from ("## Pruned while training", "")
    yield "All trained from scratch with the same budget; the loss is against the dense network of the same"
    yield "seed. CPU time on one thread of a machine with other work on it."
    yield from ("", *table(("", "seeds", "accuracy", "loss", "FLOPs left", "CPU time", "events")))
    seconds, accuracies = ([r[key] for r in dense.values()] for key in ("seconds", "accuracy"))
    yield line("dense", str(len(dense)), spread(accuracies), "", "100 %", f"{mean(seconds):.0f} s", "")
    for left in (0.4, 0.25):
        for name in TRAINED:
            found = {run.seed: r for run, r in records.items() if run[:3] == ("train", name, left)}
            if found:
                yield line(
                    f"{name}, {100 * (1 - left):.0f} % pruned",
                    str(len(found)),
                    spread(r["accuracy"] for r in found.values()),
                    spread(dense[seed]["accuracy"] - r["accuracy"] for seed, r in found.items()),
                    f"{100 * mean(r['flops'] for r in found.values()):.1f} %",
                    f"{mean(r['seconds'] for r in found.values()):.0f} s",
                    f"{100 * mean(r['events'] / r['seconds'] for r in found.values()):.2f} %",
                )


def in_one_shot(records: dict[Run, Result]) -> Iterator[str]:
    """The second table."""
    yield from ("## In one shot", "")
    yield "Dense networks; inner channels of every block cut, BatchNorm statistics recomputed on 3,000"
    yield "images, no further training.  One draw a network where a criterion draws."
    yield from ("", *table(("", "seeds", "50 % kept", "25 % kept")))
    dense = [r["accuracy"] for run, r in records.items() if run.part == "dense"]
    yield line("dense", str(len(dense)), spread(dense), spread(dense))
    for name in IN_ONE_SHOT:
        half, quarter = (
            [r["accuracy"] for run, r in records.items() if run[:3] == ("shot", name, left)]
            for left in (0.5, 0.25)
        )
        if quarter:
            yield line(name, str(len(quarter)), spread(half), spread(quarter))


def spread(values: Iterator[float] | list[float]) -> str:
    """Mean and standard deviation."""
    values = list(values)
    return f"{mean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def main() -> None:
    """Make all runs that are not in the records yet, and write the page after each."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    fashion.arguments(parser, images=4000, side=14, epochs=100, until=60, width=24, stride=2, batch=64)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shot-seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    parser.add_argument("--records", type=Path, default=Path("runs.jsonl"), metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    options = fashion.parsed(parser)
    if options.smoke:
        options.seeds = options.shot_seeds = 1
    data = fashion.Fashion(options)
    records: dict[Run, Result] = {}
    if options.records.exists():
        lines = [json.loads(line) for line in options.records.read_text().splitlines()]
        if any(line["budget"] != str(data) for line in lines):
            parser.error(f"--records: {options.records} has runs of another budget; give another file")
        records = {Run(*line["run"]): line["result"] for line in lines}
    bench = Bench(data, options.records)
    runs = [run for run in all_runs(options) if run not in records]
    for part in ("dense", "shot", "train"):  # dense networks come before what is made of them
        for run, result in bench.results([run for run in runs if run.part == part], options.jobs):
            records[run] = result
            with options.records.open("a") as file:
                file.write(json.dumps({"run": run, "budget": str(data), "result": result}) + "\n")
            print(run, result, flush=True)
            if options.markdown is not None:
                write_text(options.markdown, page(records, str(data)))
    if options.markdown is None:
        print(page(records, str(data)))
    else:
        write_text(options.markdown, page(records, str(data)))


if __name__ == "__main__":
    main()
