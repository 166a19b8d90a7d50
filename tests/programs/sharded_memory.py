"""How much more memory than its share a process needs to prune a model that it has a part of."""

import ctypes

import torch

import reprune

WIDTH, BLOCKS = 512, 16
SETTINGS = {"rule": "uniform", "layers": "linear", "sparsity": 0.5}


def shares():
    """{step: [share, peak, limit] in MiB}: 1.3 times what the process holds anyway, and the largest layer.

    None where the C library is not glibc, which tells how much memory it has given.
    """
    if not hasattr(ctypes.CDLL(None), "mallinfo2"):
        return None
    from benchmarks.fsdp_memory import MIB, held, made, peak_of, shard, stored, trained

    found, x = {}, torch.ones(2, WIDTH)

    def measure(name, step, pruner=None):
        share = held(model, optimizer)
        peak = share + peak_of(step)
        share += stored(pruner) if pruner else 0
        found[name] = [round(n / MIB, 1) for n in (share, peak, 1.3 * share + 4 * WIDTH**2)]

    for width, blocks in ((8, 2), (WIDTH, BLOCKS)):  # what the first calls load is the process's
        model, optimizer = made(width, width, blocks)
        plan = reprune.make_plan(model, torch.ones(2, width), **SETTINGS)
        measure("apply", lambda: reprune.fsdp.apply(plan, model, shard, optimizer))  # noqa: B023
    model, optimizer = made(WIDTH, WIDTH, BLOCKS)
    pruner = reprune.Pruner(model, optimizer, x, interval=1, until=3, shard=shard, **SETTINGS)
    trained(model, optimizer, WIDTH)
    measure("an event", pruner.step, pruner)
    return found
