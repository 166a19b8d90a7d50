"""What each process of :mod:`tests.programs.sharded` does, and what it finds: it should be nothing odd."""

import copy
import functools
import weakref

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_module, distribute_tensor

import reprune
from reprune.modules import sharded
from reprune.modules.twin import twin_of
from tests.helpers.networks import images, small_resnet


class Block(nn.Module):
    """Attention with its own projections, and a gated MLP."""

    def __init__(self, width):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 4, batch_first=True)
        self.up, self.gate, self.down = nn.Linear(width, 24), nn.Linear(width, 24), nn.Linear(24, width)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = self.norm2(x)
        return x + self.down(torch.sigmoid(self.gate(y)) * self.up(y))


class Tokens(nn.Module):
    """A transformer whose embedding and head are one tensor."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(11, 16), nn.Linear(16, 11, bias=False)
        self.head.weight = self.embed.weight
        self.blocks = nn.ModuleList([Block(16)])

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def tokens():
    torch.manual_seed(0)
    return Tokens()


def words(seed=0):
    return torch.randint(0, 11, (8, 6), generator=torch.Generator().manual_seed(seed))


def convolutions():
    return small_resnet(blocks=1)


NETWORKS = {  # (model, input, settings of a plan)
    "convolutions": (convolutions, lambda seed: images(8, seed=seed), {"scope": "all", "layers": "all"}),
    "tokens": (tokens, words, {"layers": "linear", "rule": "uniform"}),
}
OPTIMIZERS = {
    "SGD": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, foreach=True),
    "AdamW": functools.partial(torch.optim.AdamW, lr=0.01, foreach=True),
}


def shard(model):
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)


def sharded_model(build=convolutions):
    model = build()
    shard(model)
    return model


def train(model, optimizer, x):
    """One step; all processes see the same, so that averages over two or four are exact."""
    model.train()
    optimizer.zero_grad()
    y = model(x)
    nn.functional.cross_entropy(y, torch.arange(len(y)) % 5).backward()
    optimizer.step()


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def differences(model, optimizer, plain, its):
    """Where a sharded model and its optimizer differ from plain ones, bit for bit."""
    sharded.settle(model)
    found = []
    for (name, mine), (other, theirs) in zip(model.named_parameters(), plain.named_parameters(), strict=True):
        pairs = {"": (mine, theirs)}
        if theirs.grad is not None:
            pairs["gradient"] = (mine.grad, theirs.grad)
        states, others = optimizer.state.get(mine, {}), its.state.get(theirs, {})
        found += [] if name == other and states.keys() == others.keys() else [f"{name} is not {other}"]
        pairs |= {kind: (states[kind], others[kind]) for kind in others}
        found += [f"{name} {kind}" for kind, (a, b) in pairs.items() if not torch.equal(whole(a), b)]
    for (name, mine), (_, theirs) in zip(model.named_buffers(), plain.named_buffers(), strict=True):
        found += [] if torch.equal(mine, theirs) else [name]
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    found += [] if held == {id(p) for p in model.parameters()} else ["optimizer"]
    return found


PLANS = {
    "convolutions": [
        {"sparsity": 0.5},
        {"flops": 0.5, "scope": "all", "min_keep": 3},
        {"params": 0.6, "rule": "uniform", "layers": "all", "scope": "all"},
        {"size_mb": 0.012, "ties": "norm"},
        {"keep": {"expand": 8}},
        {"sparsity": 0.3, "select": lambda p: p.tables[0].sum((0, 2)).argsort()[: p.keep]},
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


def applied():
    """Where a model that is pruned twice in a training differs from a plain one."""
    found = {}
    for name, kind in (("convolutions", "SGD"), ("tokens", "AdamW")):
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
        found[f"{name} {kind}"] = wrong if sizes[0] < sizes[1] else [f"parameters {sizes}"]
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
            self.most = max(self.most, self.now)
            weakref.finalize(full.untyped_storage(), self._gone, full.nbytes)
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


def met(work):
    """The error that `work` meets."""
    try:
        work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


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

    sgd = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=1.0)
    return {
        "tensor parallel": met(lambda: reprune.make_plan(parallel, x, sparsity=0.5, rule="uniform")),
        "a part": met(lambda: reprune.make_plan(model.stem, x, sparsity=0.5)),
        "computed": met(lambda: reprune.make_plan(computed, x, sparsity=0.5, rule="uniform")),
        "latency": met(lambda: reprune.make_plan(model, x, latency=0.5)),
        "error": met(lambda: reprune.make_plan(model, x, sparsity=0.5, rule="error", calibrate=x)),
        "nan": met(lambda: reprune.make_plan(broken, x, sparsity=0.5)),
        "prune": met(lambda: reprune.prune(model, x, sparsity=0.5)),
        "compensate": met(lambda: reprune.compensate(model, small_resnet(), plan, x)),
        "in place": met(lambda: reprune.apply(plan, model)),
        "plain": met(lambda: apply(plan, small_resnet(), shard)),
        "no function": met(lambda: apply(plan, model, None)),
        "changes": met(
            lambda: apply(plan, model, lambda m: (shard(m), setattr(m, "expand", nn.Conv2d(12, 4, 1)))[0])
        ),
        "not sharded": met(lambda: apply(plan, model, lambda m: None)),
        "another optimizer": met(lambda: apply(plan, model, shard, sgd)),
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


ALL = [plans, applied]
TWO = [memory, twins, refusals, alone]
