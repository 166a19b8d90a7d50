"""Peak memory of each process in pruning a model that FSDP2 has sharded.

::

    python -m benchmarks.fsdp_memory --processes 4

The processes talk by gloo on this machine, and each holds its share of a stack of feed-forward blocks. They
plan, prune with the optimizer's state, and train with regrowth over six events in either mode. The peak of a
step is the most memory that is allocated within it (`memory.py`), less that before it, plus the share of the
model; what the optimizer keeps was there before. The limit is 1.3 times the share, and the largest layer.
"""

from __future__ import annotations

import argparse
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.fsdp import fully_shard

import reprune
from benchmarks.memory import peak_of

MIB = 2**20
EVENTS = 6


class Block(nn.Module):
    """A feed-forward block of a residual stream."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return a tensor like `x` [tokens, width]."""
        return x + self.down(torch.relu(self.up(self.norm(x))))


def shard(model: nn.Module) -> None:
    """Shard each block, and the rest."""
    for block in model:  # type: ignore[attr-defined]
        fully_shard(block)
    fully_shard(model)


def made(width: int, hidden: int, blocks: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model in parts, which was never whole, and an optimizer that has stepped."""
    with torch.device("meta"):
        model = nn.Sequential(*(Block(width, hidden) for _ in range(blocks)))
    shard(model)
    model.to_empty(device="cpu")
    torch.manual_seed(dist.get_rank())
    for parameter in model.parameters():
        local = parameter.to_local()  # type: ignore[attr-defined]
        nn.init.normal_(local, 0.0 if local.dim() > 1 else 1.0, 0.02)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    trained(model, optimizer, width)
    return model, optimizer


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, width: int) -> None:
    """Make a step of training."""
    optimizer.zero_grad()
    model(torch.ones(2, width)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def process(rank: int, size: int, store: str, width: int, hidden: int, blocks: int, scope: str) -> None:
    """Measure all steps in one of the processes; the first prints."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    settings = {"sparsity": 0.5, "rule": "uniform", "layers": "linear", "scope": scope}
    for small in (True, False):  # what the first calls load is the process's
        model, optimizer = made(*((8, 32, 2) if small else (width, hidden, blocks)))
        if small:
            reprune.fsdp.apply(
                reprune.make_plan(model, torch.ones(2, 8), **settings), model, shard, optimizer
            )  # type: ignore[arg-type]
    share = sum(p.to_local().nbytes for p in model.parameters())  # type: ignore[attr-defined]
    layer = 4 * width * hidden
    x = torch.ones(2, width)
    peaks: dict[str, int] = {"a step of training": peak_of(lambda: trained(model, optimizer, width))}
    plans: list[reprune.PruningPlan] = []
    peaks["make_plan"] = peak_of(lambda: plans.append(reprune.make_plan(model, x, **settings)))  # type: ignore[arg-type]
    peaks["apply"] = peak_of(lambda: reprune.fsdp.apply(plans[0], model, shard, optimizer))
    for mode in ("mask", "shrink"):
        del model, optimizer
        model, optimizer = made(width, hidden, blocks)
        given = {"shard": shard} if mode == "shrink" else {}
        pruner = reprune.Pruner(model, optimizer, x, interval=1, until=EVENTS, mode=mode, **settings, **given)  # type: ignore[arg-type]
        peaks[f"Pruner, {mode}: an event"] = 0
        for _ in range(EVENTS):
            trained(pruner.model, optimizer, width)
            peak = peak_of(pruner.step)
            peaks[f"Pruner, {mode}: an event"] = max(peak, peaks[f"Pruner, {mode}: an event"])
        del pruner
    every: list[dict[str, int]] = [{}] * size
    dist.all_gather_object(every, peaks)
    if rank == 0:
        limit = 1.3 * share + layer
        print(
            f"{size} processes, {blocks} blocks of {width} and {hidden}: whole {size * share / MIB:.0f} MiB,"
        )
        print(
            f"share {share / MIB:.0f} MiB, largest layer {layer / MIB:.0f} MiB, limit {limit / MIB:.0f} MiB"
        )
        for name in peaks:
            most = max(one[name] for one in every)
            print(f"  {name:<28} {(share + most) / MIB:6.0f} MiB  ({most / MIB:.0f} above the share)")
    dist.destroy_process_group()


def main() -> None:
    """Run the processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--scope", choices=("internal", "all"), default="internal")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        given = (args.processes, f"{folder}/store", args.width, args.hidden, args.blocks, args.scope)
        mp.spawn(process, given, nprocs=args.processes)


if __name__ == "__main__":
    main()
