"""How processes go back when one has failed after some tensors of a sharded model were exchanged."""

import contextlib

import torch
import torch.distributed as dist

import reprune
from reprune import fsdp
from reprune.modules.exchange import Exchange
from reprune.modules.sharded import local, settle
from tests.helpers.sharded import NETWORKS, OPTIMIZERS, differences, met, shard, sharded_model, train


class Counting(Exchange):
    """Counts the tensors that are moved, and fails at one of them in the second process."""

    moved, fails, undoes = 0, -1, True

    def take(self, old, moved):
        kind = type(self)
        kind.moved += 1
        if kind.moved - 1 == kind.fails and dist.get_rank() == 1:
            raise MemoryError("of process 1")
        return super().take(old, moved)

    def undo(self):
        if not self.undoes and dist.get_rank() == 1:
            raise MemoryError("in going back")
        super().undo()


@contextlib.contextmanager
def failing(at, undoes=True):
    """The tensor number `at` fails in the second process; yields the class that counts."""
    Counting.moved, Counting.fails, Counting.undoes = 0, at, undoes
    fsdp.Exchange = Counting
    try:
        yield Counting
    finally:
        fsdp.Exchange = Exchange


def expected(said, what):
    """Whether a process has met what it should where the second one has failed."""
    error = "MemoryError: of process 1"
    heard = (
        f"RuntimeError: {what}: process 1 failed, so nothing was changed on this one; its error was {error}"
    )
    return said == (error if dist.get_rank() == 1 else heard)


def apply_fails(name, kind):
    """Where a model is not as before, or does not learn as a plain one, after `apply` has failed."""
    build, inputs, settings = NETWORKS[name]
    x = inputs(0)
    plain, model, other = build(), sharded_model(build), sharded_model(build)
    its, optimizer, others = (OPTIMIZERS[kind](one.parameters()) for one in (plain, model, other))
    for one, its_own in ((plain, its), (model, optimizer), (other, others)):
        train(one, its_own, x)
    plan = reprune.make_plan(plain, x, sparsity=0.4, **settings)
    with failing(-1) as counting:
        fsdp.apply(plan, other, shard, others)
    wrong = []
    for at in (0, counting.moved // 2, counting.moved - 1):
        with failing(at):
            said = met(lambda: fsdp.apply(plan, model, shard, optimizer))
        wrong += [] if expected(said, "apply") else [f"{at}: {said}"]
        wrong += [f"{at}: {one}" for one in differences(model, optimizer, plain, its)]
        train(plain, its, inputs(at))
        train(model, optimizer, inputs(at))
        wrong += [f"{at}, a step later: {one}" for one in differences(model, optimizer, plain, its)]
    model = fsdp.apply(plan, model, shard, optimizer)
    reprune.apply(plan, plain, its)
    train(plain, its, x)
    train(model, optimizer, x)
    return wrong + differences(model, optimizer, plain, its)


def event_fails(name, kind):
    """As for `apply`, at the second event of a training in shrink mode, which regrows channels."""
    build, inputs, settings = NETWORKS[name]
    settings = {"sparsity": 0.5, "interval": 1, "regrow": 0.5, "until": 3, **settings}
    plain, model = build(), sharded_model(build)
    its, optimizer = (OPTIMIZERS[kind](one.parameters()) for one in (plain, model))
    theirs = reprune.Pruner(plain, its, inputs(0), **settings)
    pruner = reprune.Pruner(model, optimizer, inputs(0), shard=shard, **settings)

    def both_train(seed):
        train(plain, its, inputs(seed))
        train(pruner.model, optimizer, inputs(seed))
        return differences(pruner.model, optimizer, plain, its)

    wrong = both_train(0)
    with failing(-1) as counting:
        pruner.step()
    theirs.step()
    wrong += both_train(1)
    for at in (0, counting.moved // 2, counting.moved - 1):
        before = pruner.model
        with failing(at):
            said = met(pruner.step)
        wrong += [] if expected(said, "step") else [f"{at}: {said}"]
        wrong += [] if pruner.model is before and pruner.epoch == 1 else [f"{at}: the pruner"]
        wrong += [f"{at}: {one}" for one in differences(pruner.model, optimizer, plain, its)]
        wrong += [f"{at}, a step later: {one}" for one in both_train(at)]
    pruner.step()
    theirs.step()
    wrong += [] if pruner.history[1].regrown == theirs.history[1].regrown else ["regrown"]
    wrong += [] if sum(pruner.history[1].regrown.values()) else ["nothing regrown"]
    return wrong + both_train(5)


def used_up():
    """What is met with the model that was pruned, and where going back fails; what still is as it was."""
    build, inputs, settings = NETWORKS["tokens"]
    x, found = inputs(0), {}
    model, other = sharded_model(build), sharded_model(build)
    plan = reprune.make_plan(model, x, sparsity=0.4, **settings)
    settle(model)
    referred = {name: local(t) for name, t in model.state_dict().items()}
    copied = {name: t.clone() for name, t in referred.items()}
    fsdp.apply(plan, model, shard)
    found["kept"] = all(torch.equal(referred[name], t) for name, t in copied.items())
    found["old model"] = met(lambda: model(x)), met(lambda: model.blocks[0](x))
    found["old model"] += (met(lambda: fsdp.apply(plan, model, shard)),)
    with failing(3, undoes=False):
        found["no way back"] = met(lambda: fsdp.apply(plan, other, shard))
    return found
