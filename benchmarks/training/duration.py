"""How much shorter training becomes in shrink mode: two trainings side by side, epoch by epoch in turns.

::

    python -m benchmarks.training.duration --images 6000 --epochs 10 --until 6
    python -m benchmarks.training.duration --smoke

The dense network and one that loses 75 % of its FLOPs, of the same seed, on the same images, CPU time on one
thread. Before a time is reported the small network is compared with the one of mask mode, whose tensors keep
their size: the same plan, the same outputs.
"""

import argparse
import copy

import torch
from torch import nn

import reprune
from benchmarks.training import fashion

LEFT = 0.25


def trained(data: fashion.Fashion, mode: str) -> tuple[nn.Module, reprune.PruningPlan]:
    """A network pruned in one of the modes, with its plan."""
    model = data.network(0)
    *_, (_, pruner) = data.train_epochs(model, 0, lambda m, o: data.pruner(m, o, flops=LEFT, mode=mode))
    plan = pruner.finalize()
    return model.eval(), plan


def check(data: fashion.Fashion) -> None:
    """Shrink mode trains the network that mask mode trains: two batches, one event, as later sums differ."""
    short = copy.copy(data)
    short.train, short.epochs, short.until = tuple(part[: 2 * data.batch] for part in data.train), 1, 1
    (shrunk, plan), (masked, other) = (trained(short, mode) for mode in ("shrink", "mask"))
    assert plan.to_json() == other.to_json()
    with torch.no_grad():
        a, b = shrunk(data.test[0][:100]), masked(data.test[0][:100])
    assert torch.allclose(a, b, rtol=1e-5, atol=1e-5), float((a - b).abs().max())


def main() -> None:
    """Train both and print the times."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    fashion.arguments(parser, images=6000, side=28, epochs=10, until=6)
    data = fashion.Fashion(fashion.parsed(parser))
    print(f"{data}.")
    check(data)
    models = data.network(0), data.network(0)
    dense = data.train_epochs(models[0], 0, None)
    small = data.train_epochs(models[1], 0, lambda m, o: data.pruner(m, o, flops=LEFT))
    print(f"{'epoch':>5}  {'dense s':>8}  {'pruned s':>8}  {'event s':>8}  FLOPs of the next epoch")
    sums = [0.0, 0.0, 0.0]
    for epoch, ((whole, _), (spent, pruner)) in enumerate(zip(dense, small, strict=True), 1):
        flops = pruner.history[-1].flops_regrown
        times = f"{whole.training:8.2f}  {spent.training:8.2f}  {spent.event:8.3f}"
        print(f"{epoch:5d}  {times}  {100 * flops:.1f} %")
        sums = [a + b for a, b in zip(sums, (whole.training, spent.training, spent.event), strict=True)]
    pruner.finalize()
    total = sums[1] + sums[2]
    print("accuracy {:.2f} dense, {:.2f} pruned".format(*map(data.accuracy, models)))
    print(f"total {sums[0]:.1f} s dense, {total:.1f} s pruned: {100 * (1 - total / sums[0]):.1f} % less")
    print(f"events {sums[2]:.3f} s: {100 * sums[2] / total:.2f} % of it")


if __name__ == "__main__":
    main()
