"""What each process of :mod:`tests.programs.sharded` does, and what it finds: it should be nothing odd."""

import functools
import shutil
import tempfile
import time
import weakref
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as checkpoint
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.utils._pytree import tree_map_only

import reprune
from reprune.modules import sharded
from reprune.modules.twin import twin_of
from tests.helpers.networks import images, small_resnet
from tests.helpers.sharded import (
    NETWORKS,
    OPTIMIZERS,
    differences,
    met,
    shard,
    sharded_model,
    tokens,
    train,
    whole,
)
from tests.programs.sharded_undo import expected, failing

PLANS = {
    "convolutions": [
        {"sparsity": 0.5},
        {"flops": 0.5, "scope": "all", "min_keep": 3},
        {"params": 0.6, "rule": "uniform", "layers": "all", "scope": "all"},
        {"size_mb": 0.012, "ties": "norm"},
        {"keep": {"expand": 8}, "select": lambda p: p.tables[0].sum((0, 2)).argsort()[: p.keep]},
    ],
    "tokens": [{"sparsity": 0.5, "rule": "uniform", "layers": "linear"}],
}


def plans():
    """Targets and rules by which the plan of the sharded model is not that of the plain one."""
    wrong = []
    for name, every in PLANS.items():
        build, inputs, _ = NETWORKS[name]
        plain, model, told = build(), sharded_model(build), []
        x = inputs(0)
        with torch.no_grad():
            model(x)  # after which the parameters of the root are whole
        traced = reprune.trace(model, x)
        for settings in every:
            expected = reprune.make_plan(plain, x, **settings)
            for given in (x, traced) if settings is every[0] else (traced,):
                plan = reprune.make_plan(model, given, progress=lambda *said: told.append(said), **settings)  # noqa: B023
                wrong += [] if plan.to_json() == expected.to_json() else [f"{name} {settings}"]
        for (path, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
            wrong += [] if torch.equal(whole(p), q) else [f"{path} was changed"]
        if ("certify", 1, 1) not in told or not any(stage == "select" for stage, *_ in told):
            wrong.append("nothing was told of the progress")
    return wrong


def applied(name, kind):
    """Where a model that is pruned twice in a training differs from a plain one."""
    build, inputs, settings = NETWORKS[name]
    plain = build()
    model = sharded_model(build)
    its, optimizer = (OPTIMIZERS[kind](one.parameters()) for one in (plain, model))
    for event in range(2):
        train(plain, its, inputs(event))
        train(model, optimizer, inputs(event))
        plan = reprune.make_plan(plain, inputs(0), sparsity=0.4, seed=event, **settings)
        model = reprune.fsdp.apply(plan, model, shard, optimizer)
        reprune.apply(plan, plain, its)
    wrong = differences(model, optimizer, plain, its)
    train(plain, its, inputs(5))
    train(model, optimizer, inputs(5))
    wrong += differences(model, optimizer, plain, its)
    sizes = [sum(p.numel() for p in one.parameters()) for one in (model, build())]
    return wrong if sizes[0] < sizes[1] else [f"parameters {sizes}"]


def layouts():
    """Where a model of two linear layers differs from a plain one that is pruned alike, by how it lies."""
    found = {}
    four, twos = (
        init_device_mesh("cpu", (4,)),
        init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "parts")),
    )
    for name, how in {
        "rows": {"mesh": four},
        "replicated": {"mesh": twos},
        "columns": {"mesh": four, "shard_placement_fn": lambda p: Shard(p.dim() - 1)},
    }.items():

        def build():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 5))

        x, settings = torch.randn(2, 8), {"keep": {"0": 8}, "layers": "linear"}
        plain, model = build(), build()
        fully_shard(model, **how)
        its, optimizer = (OPTIMIZERS["SGD"](one.parameters()) for one in (plain, model))
        train(plain, its, x)
        train(model, optimizer, x)
        plan, same = (reprune.make_plan(one, x, **settings) for one in (model, plain))
        shards, found[name] = functools.partial(fully_shard, **how), []
        with failing(at=11):  # the last of weights, gradients and momentum
            said = met(lambda: reprune.fsdp.apply(plan, model, shards, optimizer))  # noqa: B023
        found[name] += [] if expected(said, "apply") else [said]
        found[name] += differences(model, optimizer, plain, its)
        model = reprune.fsdp.apply(plan, model, shards, optimizer)
        reprune.apply(plan, plain, its)
        train(plain, its, x)
        train(model, optimizer, x)
        found[name] += differences(model, optimizer, plain, its)
        found[name] += [] if plan.to_json() == same.to_json() else ["plan"]
    return found


class Counting:
    """Counts the bytes of whole parameters that are alive at once."""

    def __init__(self):
        self.now = self.most = 0

    def __call__(self, gathered):
        @functools.wraps(gathered)
        def counted(part):
            full = gathered(part)
            self.now += full.nbytes
            weakref.finalize(full.untyped_storage(), self._gone, full.nbytes)
            end = time.monotonic() + 2  # on a busy machine a thread of gloo lets go of the last one only now
            while self.now > max(self.most, full.nbytes) and time.monotonic() < end:
                time.sleep(0.001)
            self.most = max(self.most, self.now)
            return full

        return counted

    def _gone(self, size):
        self.now -= size


def memory():
    """[most bytes of whole parameters at once, those of the largest] in a plan and its application."""
    sizes = {"channels": 16, "inner": 32}
    model = sharded_model(lambda: small_resnet(**sizes))
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer, images(8))
    largest = max(p.nbytes for p in model.parameters())
    found = {"all": sum(p.nbytes for p in model.parameters())}
    gathered = sharded._gathered
    try:
        sharded._gathered = (counting := Counting())(gathered)
        plan = reprune.make_plan(model, images(2), sparsity=0.5)
        found["plan"] = counting.most, largest
        sharded._gathered = (counting := Counting())(gathered)
        reprune.fsdp.apply(plan, model, shard, optimizer)
        found["apply"] = counting.most, largest
    finally:
        sharded._gathered = gathered
    return found


class Odd(nn.Module):
    """A layer in two places, a frozen one, a user's hook and a parameter that is not sharded."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.stem = nn.Conv2d(3, 4, 1)
        self.body = nn.Sequential(nn.Conv2d(4, 10, 3), nn.BatchNorm2d(10), nn.ReLU(), nn.Conv2d(10, 4, 3))
        self.scale = nn.Parameter(torch.ones(10, 1, 1))
        self.stem.weight.requires_grad_(False)
        self.seen = []
        self.body[2].register_forward_hook(functools.partial(_scaled, self))

    def forward(self, x):
        return self.body(self.again(self.first(self.stem(x)))).mean((2, 3))

    def scores(self, x):
        return self(x).softmax(1)


def _scaled(model, module, args, out):
    return out * model.scale


def twins():
    """What a plain twin of a sharded model has and should not have, or lacks."""
    plain, model = Odd(), Odd()

    def parts(model):
        fully_shard(model.body[0])
        fully_shard(model, ignored_params={model.scale})

    parts(model)
    torch.distributed.fsdp.register_fsdp_forward_method(model, "scores")
    model.eval().scores(images(2))
    twin = twin_of(model)
    wrong = [str(kind) for module in twin.modules() if "FSDP" in (kind := type(module)).__name__]
    wrong += [] if twin.first is twin.again and twin.scale is model.scale else ["not the same"]
    wrong += [] if twin.body[1].running_mean is model.body[1].running_mean else ["another buffer"]
    for (path, mine), (_, theirs) in zip(twin.named_modules(), plain.named_modules(), strict=True):
        if mine.__dict__.keys() != theirs.__dict__.keys():
            wrong.append(f"{path}: {sorted(mine.__dict__.keys() ^ theirs.__dict__.keys())}")
        tables = [name for name in mine.__dict__ if "_hooks" in name]
        wrong += [f"{path}: {t}" for t in tables if len(mine.__dict__[t]) != len(theirs.__dict__[t])]
    for (name, p), (_, q) in zip(twin.named_parameters(), plain.named_parameters(), strict=True):
        if (p.shape, p.dtype, p.requires_grad) != (q.shape, q.dtype, q.requires_grad):
            wrong.append(name)
    tied = twin_of(sharded_model(tokens))
    wrong += [] if tied.head.weight is tied.embed.weight and tied.head.weight.is_meta else ["not tied"]

    plan = reprune.make_plan(model, images(2), keep={"body.0": 6})
    wrong += (
        []
        if plan.to_json() == reprune.make_plan(plain, images(2), keep={"body.0": 6}).to_json()
        else ["plan"]
    )
    small = reprune.fsdp.apply(plan, model, parts)
    reprune.apply(plan, plain)
    nothing = torch.optim.SGD(small.parameters()), torch.optim.SGD(plain.parameters())
    wrong += differences(small, nothing[0], plain, nothing[1])
    x = images(2)
    return wrong if torch.equal(small.eval()(x), plain.eval()(x)) else [*wrong, "outputs"]


def shared_folder():
    """A folder that all processes see, made and removed by the first one."""
    made = [tempfile.mkdtemp() if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(made)
    return Path(made[0])


def saved(name):
    """Where files of a sharded model, small or with a plan, are not those of a plain one."""
    folder = shared_folder()
    build, inputs, settings = NETWORKS[name]
    plain, model = build(), sharded_model(build)
    plan = reprune.make_plan(plain, inputs(0), sparsity=0.4, **settings)
    reprune.save(model, folder / "by plan", plan)
    small = reprune.fsdp.apply(plan, model, shard)
    reprune.apply(plan, plain)
    reprune.save(small, folder / "mine")
    reprune.save(plain, expected := folder / f"plain {dist.get_rank()}")
    files = [(folder / path).read_bytes() for path in ("mine", "by plan")]
    wrong = [] if files == [expected.read_bytes()] * 2 else ["files"]
    restored = reprune.load(folder / "mine", build()).eval()
    x = inputs(0)
    with torch.no_grad():
        wrong += [] if torch.equal(restored(x), small.eval()(x)) else ["restored"]

    # through PyTorch's own checkpoints: the pruned structure without values, sharded, and then filled
    sharded.settle(small)  # after a pass without a backward one, some parameters are whole
    optimizer = OPTIMIZERS["AdamW"](small.parameters())
    train(small, optimizer, x)
    model_state, state = get_state_dict(small, optimizer)
    checkpoint.save({"model": model_state, "optimizer": state}, checkpoint_id=folder / "checkpoint")
    with torch.device("meta"):
        again = build()
    reprune.apply(reprune.read_plan(folder / "mine"), again)
    shard(again)
    again.to_empty(device="cpu")
    later = OPTIMIZERS["AdamW"](again.parameters())
    model_state, state = get_state_dict(again, later)
    checkpoint.load({"model": model_state, "optimizer": state}, checkpoint_id=folder / "checkpoint")
    set_state_dict(again, later, model_state_dict=model_state, optim_state_dict=state)
    optimizer.zero_grad()
    plain.load_state_dict({key: whole(t) for key, t in small.state_dict().items()})
    its = OPTIMIZERS["AdamW"](plain.parameters())
    its.load_state_dict(tree_map_only(DTensor, whole, optimizer.state_dict()))
    wrong += differences(again, later, plain, its)

    nowhere = met(lambda: reprune.save(sharded_model(), folder / "nowhere" / "file"))
    into = met(lambda: reprune.load(expected, sharded_model()))
    dist.barrier()
    if dist.get_rank() == 0:
        shutil.rmtree(folder)
    return {"wrong": wrong, "nowhere": nowhere, "into": into}
