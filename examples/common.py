"""What the recipes share: the processes of torchrun, options, and what comes after the last epoch."""

import argparse
import os
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import reprune


class Place(NamedTuple):
    """Where this process stands among those that torchrun started; 0 of 1 without it."""

    rank: int
    size: int
    device: torch.device

    def parallel(self, model: nn.Module) -> nn.Module:
        """`model` for the training loop; anew after every event, as its parameters are new then."""
        return DistributedDataParallel(model) if self.size > 1 else model

    def finish(self, pruner: reprune.Pruner, file: Path) -> None:
        """After the last epoch: make the structure final, write the small network, say what was done."""
        plan = pruner.finalize()
        if self.rank == 0:
            reprune.save(pruner.model, file)
            print(pruner.history)
            print(f"FLOPs {plan.flops[0]:,} -> {plan.flops[1]:,}; {file}")
        if self.size > 1:
            dist.destroy_process_group()


def join() -> Place:
    """Join the other processes, each with a GPU of its own if there are any."""
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if size > 1:
        dist.init_process_group("nccl" if cuda else "gloo")
    return Place(rank, size, device)


def options_of(
    parser: argparse.ArgumentParser, flops: float, arguments: list[str] | None
) -> argparse.Namespace:
    """The options of `parser` and those that all recipes have."""
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--flops", type=float, default=flops, help="share left, default %(default)s")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where files are left")
    parser.add_argument("--smoke", action="store_true", help="generated images, few and small")
    options = parser.parse_args(arguments)
    if (options.data is None) != options.smoke:
        parser.error("give --data DIR or --smoke")
    options.out.mkdir(parents=True, exist_ok=True)  # before hours of training, not after
    return options
