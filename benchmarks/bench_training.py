"""What the criterion is worth on Fashion-MNIST: pruned while training, and in one shot.  Written to a
Markdown file.

::

    python benchmarks/bench_training.py --data /usr/share/datasets/fashion-mnist --markdown fashion.md
    python benchmarks/bench_training.py --smoke

The network is that of examples/fashion_mnist.py: ResNet-20, 16 to 64 channels.  All criteria are given the
same numbers of channels by the same rule (BatchNorm scales, for a share of the FLOPs), the same schedule,
regrowth and budget; they differ in nothing but which filters of a layer stay:

REPrune (random), REPrune (norm)   this package, with either tie rule
random                             drawn anew at each event
L1                                 the largest sums of absolute weights
BN gamma                           the largest absolute BatchNorm scales
FPGM                               the largest sums of distances to the layer's other filters

The first table: trained from scratch, accuracy at the end.  The second: a trained network, inner channels
halved or quartered in every block, BatchNorm statistics recomputed, no further training.
"""

import argparse
import contextlib
import copy
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import reprune
from reprune.selection import LayerProblem, Selection, select_layers

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist.py"
CRITERIA = ("REPrune (random)", "REPrune (norm)", "random", "L1", "BN gamma", "FPGM")
Images = tuple[Tensor, Tensor]


def example() -> object:
    """The module examples/fashion_mnist.py."""
    spec = importlib.util.spec_from_file_location("fashion_mnist", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def scores(criterion: str, problem: LayerProblem, model: nn.Module, rng: np.random.Generator) -> np.ndarray:
    """[O] the larger, the rather a filter stays."""
    filters = np.concatenate(
        [np.asarray(t).transpose(1, 0, 2).reshape(t.shape[1], -1) for t in problem.tables], 1
    )
    if criterion == "L1":
        return np.abs(filters).sum(1)
    if criterion == "BN gamma":
        return model.get_parameter(f"{problem.name.replace('conv', 'bn')}.weight").detach().abs().numpy()
    if criterion == "FPGM":
        return np.linalg.norm(filters[:, None] - filters[None], axis=2).sum(1)
    return rng.random(len(filters))


@contextlib.contextmanager
def deciding(criterion: str, model: nn.Module, seed: int) -> Iterator[str]:
    """Let `criterion` select in the planner and in the pruner; the tie rule to use."""
    if criterion.startswith("REPrune"):
        yield criterion[9:-1]
        return
    rng = np.random.default_rng(seed)

    def select(problems: Sequence[LayerProblem], **how: object) -> list[Selection]:
        found = select_layers([LayerProblem(p.name, p.tables, p.tables[0].shape[1]) for p in problems])
        for k, problem in enumerate(problems):
            best = np.argsort(-scores(criterion, problem, model, rng), kind="stable")[: problem.keep]
            whole = found[k]
            found[k] = Selection(
                np.sort(best), best, whole.gains[best], whole.heights, whole.labels, whole.clusters
            )
        return found

    with (
        mock.patch("reprune.pruner.decide.select_layers", select),
        mock.patch("reprune.planner.select_layers", select),
    ):
        yield "random"


def fit(
    model: nn.Module, images: Images, epochs: int, seed: int, make: Callable[..., reprune.Pruner] | None
) -> tuple[reprune.Pruner | None, float]:
    """Train; `make` gives the pruner.  Returns it and the seconds."""
    module = example()
    batch = 128 if len(images[0]) > 1000 else 16
    steps = epochs * -(-len(images[0]) // batch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=steps, pct_start=0.15)
    generator = torch.Generator().manual_seed(seed)
    start = time.perf_counter()
    pruner = None if make is None else make(model, optimizer)
    for _ in range(epochs):
        model.train()
        for part in torch.randperm(len(images[0]), generator=generator).split(batch):
            x = module.augmented(images[0][part], generator)  # type: ignore[attr-defined]
            loss = F.cross_entropy(model(x), images[1][part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        if pruner is not None:
            pruner.step()
    if pruner is not None:
        pruner.finalize()
    return pruner, time.perf_counter() - start


def recompute_statistics(model: nn.Module, images: Tensor) -> None:
    """BatchNorm's means and variances, as averages over batches of `images`."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    model.train()
    with torch.no_grad():
        for x in images[:5000].split(250):
            model(x)


def row(name: str, values: Sequence[float], *more: str) -> str:
    """A row of a table: mean and spread of accuracies in percent."""
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return " | ".join(["", name, f"{100 * mean(values):.2f}{spread}", *more, ""]).strip()


def main() -> None:
    """Run both parts and write the page."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), metavar="DIR")
    parser.add_argument("--images", type=int, default=15000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--until", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shot-seeds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    parser.add_argument("--smoke", action="store_true", help="generated images: a rehearsal, not a result")
    options = parser.parse_args()
    if options.smoke:
        options.images, options.epochs, options.until, options.seeds, options.shot_seeds = 160, 2, 1, 1, 1
    module = example()
    if options.smoke:
        train, test = module.generated(options.images), module.generated(100)  # type: ignore[attr-defined]
    else:
        train, test = (module.read(options.data, part) for part in ("train", "t10k"))  # type: ignore[attr-defined]
        train = tuple(t[: options.images] for t in train)

    def fresh(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return module.network(8, 1) if options.smoke else module.network()  # type: ignore[attr-defined]

    def right(model: nn.Module) -> float:
        return module.accuracy(model, *test)  # type: ignore[attr-defined]

    lines = [
        f"Fashion-MNIST, {options.images} training images, {options.epochs} epochs, "
        f"events until {options.until}.",
        *("", f"## While training ({options.seeds} seeds)", ""),
        *("| | accuracy | FLOPs left | training time | events |", "|---|---|---|---|---|"),
    ]
    dense, seconds = [], []
    for seed in range(max(options.seeds, options.shot_seeds)):
        model = fresh(seed)
        seconds.append(fit(model, train, options.epochs, seed, None)[1])
        dense.append(model)
    lines.append(
        row("dense", [right(m) for m in dense[: options.seeds]], "100 %", f"{mean(seconds):.0f} s", "")
    )
    for flops in (0.4, 0.25):
        for criterion in CRITERIA:
            results, times, events, left = [], [], [], []
            for seed in range(options.seeds):
                model = fresh(seed)
                with deciding(criterion, model, seed) as ties:

                    def make(model: nn.Module, optimizer: torch.optim.Optimizer) -> reprune.Pruner:
                        settings = {"interval": 1, "until": options.until, "ties": ties, "seed": seed}  # noqa: B023
                        return reprune.Pruner(model, optimizer, test[0][:1], flops=flops, **settings)  # noqa: B023

                    pruner, spent = fit(model, train, options.epochs, seed, make)
                assert pruner is not None
                results.append(right(model))
                times.append(spent)
                events.append(sum(event.seconds for event in pruner.history) / spent)
                left.append(pruner.plan.flops[1] / pruner.plan.flops[0])
            share = f"{100 * mean(left):.1f} %"
            lines.append(
                row(criterion, results, share, f"{mean(times):.0f} s", f"{100 * mean(events):.2f} %")
            )
            print(lines[-1], flush=True)
    lines += [
        "",
        f"## In one shot ({options.shot_seeds} seeds)",
        "",
        "| | 50 % kept | 25 % kept |",
        "|---|---|---|",
    ]
    for criterion in CRITERIA:
        cells = []
        for share in (0.5, 0.25):
            results = []
            for seed in range(options.shot_seeds):
                model = copy.deepcopy(dense[seed])
                inner = {n: m for n, m in model.named_modules() if n.endswith("conv1")}
                keep = {name: max(1, round(share * conv.out_channels)) for name, conv in inner.items()}
                with deciding(criterion, model, seed) as ties:
                    plan = reprune.make_plan(model, test[0][:1], keep=keep, ties=ties, seed=seed)
                reprune.apply(plan, model)
                recompute_statistics(model, train[0])
                results.append(right(model))
            cells.append(row("", results).strip("| "))
        lines.append(f"| {criterion} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    page = "\n".join([*lines, ""])
    if options.markdown is not None:
        options.markdown.write_text(page, encoding="utf-8")
    else:
        print(page)


if __name__ == "__main__":
    main()
