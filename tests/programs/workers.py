"""What each process of a distributed training does; started by torchrun, or as a case of ranks.py.

An assertion that fails ends it with 1.
"""

import hashlib
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import reprune
from reprune.pruner import decide
from tests.helpers.networks import images, small_resnet

EVENTS = 4


def alike(*things):
    """Every process has the same."""
    digest = hashlib.sha256()
    for thing in things:
        digest.update(thing.detach().numpy().tobytes() if isinstance(thing, torch.Tensor) else thing.encode())
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, digest.hexdigest())
    assert len(set(everyone)) == 1, everyone
    return everyone[0]


def train(mode):
    rank = dist.get_rank()
    model = small_resnet()
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = reprune.Pruner(
        parallel if mode == "mask" else model,
        optimizer,
        images(2),
        sparsity=0.5,
        interval=1,
        until=EVENTS,
        regrow=0.4,
        mode=mode,
    )
    clustered = []
    choose = decide.choose
    decide.choose = lambda problems, *how: (
        clustered.append([p.name for p in problems]),
        choose(problems, *how),
    )[1]
    for epoch in range(EVENTS + 1):
        parallel.train()
        optimizer.zero_grad()
        x = images(8, seed=100 * epoch + rank)  # every process has other images
        nn.functional.cross_entropy(parallel(x), torch.arange(8) % 5).backward()
        optimizer.step()
        if pruner.step() and mode == "shrink":
            parallel = DistributedDataParallel(model)
        digest = alike(pruner.plan.to_json(), *model.parameters())
    decide.choose = choose
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, clustered)
    assert all(parts[0] for parts in everyone)  # all had some
    for event in zip(*everyone, strict=True):  # each layer was clustered by one process
        names = [name for part in event for name in part]
        assert len(names) == len(set(names)) == len(pruner.history[0].kept), names
    assert sum(sum(event.regrown.values()) for event in pruner.history) > 0
    pruner.finalize()
    alike(pruner.plan.to_json(), *model.parameters())
    return f"{mode} {digest}"


def ranks_that_differ():
    model = small_resnet(seed=dist.get_rank())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    pruner = reprune.Pruner(model, optimizer, images(2), sparsity=0.5, interval=1, until=2)
    with pytest.raises(ValueError, match="are not training one network"):
        pruner.step()
    assert pruner.epoch == 0


def everything(modes):
    """A line for each mode."""
    lines = [train(mode) for mode in modes]
    ranks_that_differ()
    return lines


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    said = everything(sys.argv[1:])
    if dist.get_rank() == 0:
        print(*said, sep="\n")
    dist.destroy_process_group()
