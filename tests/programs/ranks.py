"""Two processes over gloo that train alike, or come to events in different states; started by test_ranks.py.

Writes {case: [what each process met]} as JSON.
"""

import copy
import json
import os
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from unittest import mock

import torch
import torch._dynamo  # an optimizer imports it, here once for both processes
import torch.distributed as dist
from torch import nn

import reprune
from reprune.pruner import decide
from tests.programs.workers import everything

X = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def start(seed=0, **settings):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    settings = {"sparsity": 0.5, "rule": "uniform", "interval": 1, "until": 3, "regrow": 0.5, **settings}
    return model, optimizer, reprune.Pruner(model, optimizer, X, **settings)


def train(model, optimizer):
    optimizer.zero_grad()
    model(X).square().mean().backward()
    optimizer.step()


def met(pruner, step=None):
    """The error of a step, and whether all is as it was."""
    before = copy.deepcopy(pruner.model.state_dict())
    was = pruner.epoch, len(pruner.history), [id(p) for p in pruner.model.parameters()]
    try:
        (step or pruner.step)()
    except Exception as error:
        after = pruner.model.state_dict().items()
        same = all(torch.equal(t, before[n]) or not t.isfinite().all() for n, t in after)
        same = same and was == (pruner.epoch, len(pruner.history), [id(p) for p in pruner.model.parameters()])
        return f"{type(error).__name__}: {error} | {'as before' if same else 'CHANGED'}"
    return "no error"


def settings(rank):
    return met(start(seed=0, **({"regrow": 0.4} if rank else {}))[2])


def modes(rank):
    return met(start(mode="mask" if rank else "shrink")[2])


def weights(rank):
    model, _, pruner = start()
    if rank:
        model[3].bias.data[0] += 1e-6
    return met(pruner)


def ahead(rank):
    """One calls step() twice after an epoch, so its second epoch ends before it is trained."""
    model, optimizer, pruner = start(interval=2, until=4)
    train(model, optimizer)
    pruner.step()
    if rank == 0:
        train(model, optimizer)
    return met(pruner)


def older(rank):
    """One goes on from the file of the epoch before."""
    pruner = start()[2]
    pruner.step()
    old = pruner.state_dict()
    pruner.step()
    if rank:
        pruner = start()[2]
        pruner.load_state_dict(old)
    return met(pruner)


def not_finite(rank):
    model, _, pruner = start()
    kept = model[0].weight.detach().clone()
    if rank:
        model[0].weight.data[0] = torch.nan
    said = met(pruner)
    model[0].weight.data.copy_(kept)
    return f"{said}; then {met(pruner)}"


def no_memory(rank):
    pruner = start()[2]
    error = MemoryError("of process 1") if rank else None
    with mock.patch.object(decide, "choose", side_effect=error, wraps=decide.choose):
        return met(pruner)


def no_memory_to_move(rank):
    pruner = start()[2]
    error = MemoryError("of process 1") if rank else None
    with mock.patch.object(pruner.live.mode, "exchange", side_effect=error, wraps=pruner.live.mode.exchange):
        return met(pruner)


def not_certified(rank):
    pruner = start(until=1)[2]
    error = ValueError("not certified") if rank else None
    with mock.patch.object(
        pruner.live.structure, "certify", side_effect=error, wraps=pruner.live.structure.certify
    ):
        return met(pruner)


def alike(rank):
    model, optimizer, pruner = start()
    for _ in range(3):
        train(model, optimizer)
        pruner.step()
    return pruner.plan.to_json()


def trained(rank):
    return "\n".join(everything(["shrink", "mask"]))


def killed(rank):
    pruner = start()[2]
    if rank:
        with mock.patch.object(decide, "choose", side_effect=lambda *_, **__: os.kill(os.getpid(), 9)):
            pruner.step()
    return met(pruner)


CASES = [
    settings,
    modes,
    weights,
    ahead,
    older,
    not_finite,
    no_memory,
    no_memory_to_move,
    not_certified,
    alike,
    trained,
    killed,
]


def process(rank, folder):
    torch.set_num_threads(1)  # see tests.programs.sharded
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=30),
    )
    for case in CASES:
        (folder / f"{case.__name__}{rank}").write_text(case(rank))


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        children = []
        for rank in range(2):
            child = os.fork()
            if child == 0:
                try:
                    process(rank, folder)
                finally:
                    sys.stderr.flush()
                    os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        texts = {
            case.__name__: [
                p.read_text() if (p := folder / f"{case.__name__}{rank}").exists() else ""
                for rank in range(2)
            ]
            for case in CASES
        }
    print(json.dumps(texts))


if __name__ == "__main__":
    main()
