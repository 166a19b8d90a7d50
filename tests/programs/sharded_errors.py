"""What processes with parts of a model meet: everywhere, or where one of them fails; see sharded.py."""

import copy

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_module, distribute_tensor

import reprune
from reprune.modules import sharded
from tests.helpers.networks import images, small_resnet
from tests.helpers.sharded import (
    met,
    shard,
    sharded_model,
    tokens,
    train,
)


def refusals():
    """What is refused, by what was asked for."""
    x = images(2)
    model = sharded_model()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))

    def rows(name, module, mesh):
        for key, p in module.named_parameters(recurse=False):
            module.register_parameter(key, nn.Parameter(distribute_tensor(p, mesh, [Shard(0)])))

    parallel = distribute_module(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), mesh, rows)
    computed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.Conv2d(4, 4, 3))
    fully_shard(computed)
    plan = reprune.make_plan(model, x, sparsity=0.5)
    apply = reprune.fsdp.apply
    broken = sharded_model()
    with torch.no_grad():
        sharded.local(broken.expand.weight).fill_(torch.nan)

    def changes(model):
        shard(model)
        model.expand = nn.Conv2d(12, 4, 1)

    def pruner(model, x, **settings):
        return reprune.Pruner(model, torch.optim.SGD(model.parameters(), lr=0.1), x, sparsity=0.5, **settings)

    waiting = sharded_model()
    waiting.set_requires_gradient_sync(False)
    waiting(x).sum().backward()
    masked = pruner(sharded_model(), x, mode="mask")
    sgd = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    return {
        "tensor parallel": met(lambda: reprune.make_plan(parallel, x, sparsity=0.5, rule="uniform")),
        "a part": met(lambda: reprune.make_plan(model.stem, x, sparsity=0.5)),
        "computed": met(lambda: reprune.make_plan(computed, x, sparsity=0.5, rule="uniform")),
        "latency": met(lambda: reprune.make_plan(model, x, latency=0.5)),
        "error": met(lambda: reprune.make_plan(model, x, sparsity=0.5, rule="error", calibrate=x)),
        "nan": met(lambda: reprune.make_plan(broken, x, sparsity=0.5)),
        "save_training": met(lambda: reprune.save_training("none", masked.model, masked.optimizer, masked)),
        "no shard": met(lambda: pruner(model, x)),
        "shard of a plain model": met(lambda: pruner(small_resnet(), x, shard=shard)),
        "copies": met(lambda: pruner(model, x, shard=shard, copies=[sharded_model()])),
        "parallel in training": met(lambda: pruner(parallel, x, mode="mask", rule="uniform")),
        "prune": met(lambda: reprune.prune(model, x, sparsity=0.5)),
        "compensate": met(lambda: reprune.compensate(model, small_resnet(), plan, x)),
        "in place": met(lambda: reprune.apply(plan, model)),
        "plain": met(lambda: apply(plan, small_resnet(), shard)),
        "no function": met(lambda: apply(plan, model, None)),
        "changes": met(lambda: apply(plan, model, changes)),
        "not sharded": met(lambda: apply(plan, model, lambda m: None)),
        "another optimizer": met(lambda: apply(plan, model, shard, sgd)),
        "gradients": met(lambda: apply(plan, waiting, shard)),
        "another model": met(lambda: apply(plan, sharded_model(tokens), shard)),
    }


def alone():
    """What each process meets where one of them fails, and whether all is as before."""
    rank = dist.get_rank()

    def fails(*told):
        if rank == 1 and told[0] in ("select", "shard"):
            raise MemoryError("of process 1")

    def selects(problem):
        if rank == 1:
            raise MemoryError("of process 1")
        return range(problem.keep)

    def fails_to_shard(model):
        shard(model)
        fails("shard")

    model, x = sharded_model(), images(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plan, *plans = (reprune.make_plan(model, x, sparsity=s) for s in (0.5, 0.4, 0.6))
    found = {}
    for name, work in {
        "plan": lambda: reprune.make_plan(model, x, sparsity=0.5, progress=fails),
        "select": lambda: reprune.make_plan(model, x, sparsity=0.5, select=selects),
        "apply": lambda: reprune.fsdp.apply(plan, model, fails_to_shard, optimizer),
        "plans": lambda: reprune.fsdp.apply(plans[rank], model, shard, optimizer),
        "states": lambda: reprune.fsdp.apply(plan, model, shard, optimizer if rank else None),
    }.items():
        train(model, optimizer, images(8))
        sharded.settle(model)
        was = [(id(p), sharded.local(p).clone()) for p in model.parameters()]
        states = copy.deepcopy([sharded.local(s["momentum_buffer"]) for s in optimizer.state.values()])
        said = met(work)
        same = all(
            id(p) == where and torch.equal(sharded.local(p), value)
            for p, (where, value) in zip(model.parameters(), was, strict=True)
        )
        now = [sharded.local(s["momentum_buffer"]) for s in optimizer.state.values()]
        same = same and all(map(torch.equal, now, states))
        found[name] = f"{said} | {'as before' if same else 'CHANGED'}"
    train(model, optimizer, images(8))
    return found
