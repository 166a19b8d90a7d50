"""Trainings of a model in parts that are pruned on the way, beside those of the model in one piece."""

import copy

import torch
import torch.distributed as dist
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map_only

import reprune
from reprune.modules import sharded
from tests.helpers.networks import images
from tests.helpers.sharded import NETWORKS, OPTIMIZERS, differences, met, shard, sharded_model, train, whole

SETTINGS = {"sparsity": 0.5, "interval": 1, "regrow": 0.5}


def pruned(name, kind, mode, events):
    """Where a training of one network, optimizer and mode differs from that in one piece."""
    build, inputs, settings = NETWORKS[name]
    settings = {**SETTINGS, **settings, "until": events, "mode": mode}
    plain, model = build(), sharded_model(build)
    its, optimizer = (OPTIMIZERS[kind](one.parameters()) for one in (plain, model))
    theirs = reprune.Pruner(plain, its, inputs(0), **settings)
    with torch.no_grad():
        model(inputs(0))  # after which the parameters of the root are whole
    pruner = reprune.Pruner(
        model, optimizer, inputs(0), shard=shard if mode == "shrink" else None, **settings
    )
    wrong = []
    for epoch in range(events + 1):
        train(plain, its, inputs(epoch))
        train(model, optimizer, inputs(epoch))
        if not theirs.step() == pruner.step() == (epoch < events):
            wrong.append(f"{epoch}: event")
        if (model is pruner.model) != (mode == "mask" or epoch == events):
            wrong.append(f"{epoch}: model")
        model = pruner.model
        if epoch == 1:  # a step that would change dropped channels, too, if they were not held at zero
            for one, its_own in ((plain, its), (model, optimizer)):
                for p in one.parameters():
                    p.grad = torch.ones_like(p)
                its_own.step()
        wrong += [] if pruner.plan.to_json() == theirs.plan.to_json() else [f"{epoch}: plan"]
        if epoch in (1, events - 1):
            wrong += [f"{epoch}: {one}" for one in differences(model, optimizer, plain, its)]
    wrong += [] if sum(sum(event.regrown.values()) for event in pruner.history) else ["nothing regrown"]
    plan = pruner.finalize()
    theirs.finalize()
    if mode == "mask":
        model = reprune.fsdp.apply(plan, model, shard, optimizer)
    train(plain, its, inputs(9))
    train(model, optimizer, inputs(9))
    return wrong + differences(model, optimizer, plain, its)


def begun(mode, until=3):
    """A sharded model, its optimizer and its pruner."""
    build, inputs, _ = NETWORKS["convolutions"]
    model = sharded_model(build)
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    settings = {**SETTINGS, "until": until, "mode": mode, "shard": shard if mode == "shrink" else None}
    return model, optimizer, reprune.Pruner(model, optimizer, inputs(0), **settings)


def epoch_of(pruner, seed):
    train(pruner.model, pruner.optimizer, images(8, seed=seed))
    return pruner.step()


def resumed(mode):
    """Where a training that was interrupted differs from one that was not; each process keeps its state."""
    _, optimizer, pruner = begun(mode)
    for epoch in range(2):
        epoch_of(pruner, epoch)
    saved = copy.deepcopy(pruner.state_dict())
    states = tree_map_only(torch.Tensor, torch.clone, get_state_dict(pruner.model, optimizer))
    _, later, again = begun(mode)
    again.load_state_dict(saved)
    set_state_dict(again.model, later, model_state_dict=states[0], optim_state_dict=states[1])
    for one in (pruner, again):
        for epoch in range(2, 4):
            epoch_of(one, epoch)
    wrong = differences(again.model, later, *in_one_piece(pruner))
    return wrong if again.plan.to_json() == pruner.plan.to_json() else [*wrong, "plan"]


def left(mode):
    """Train on two processes, leave what others can resume from, and how it went on here."""
    _, optimizer, pruner = begun(mode)
    for epoch in range(2):
        epoch_of(pruner, epoch)
    states = get_state_dict(pruner.model, optimizer)
    checkpoint.save({"model": states[0], "optimizer": states[1]}, checkpoint_id=mode)
    torch.save(pruner.state_dict(), f"{mode} {dist.get_rank()}")
    for epoch in range(2, 4):
        epoch_of(pruner, epoch)
    plain, its = in_one_piece(pruner)
    gradients = [p.grad for p in plain.parameters()]
    if dist.get_rank() == 0:
        torch.save((plain.state_dict(), its.state_dict(), gradients, pruner.plan.to_json()), f"{mode} end")
    return []


def taken_up(mode):
    """Where a training that other processes left differs from theirs, in parts and in one piece."""
    states = [torch.load(f"{mode} {rank}", mmap=True) for rank in (1, 0)]
    values, state, gradients, plan = torch.load(f"{mode} end")
    wrong = []
    model, optimizer, pruner = begun(mode)
    for given in (states[:1], states[0]):
        said = met(lambda: pruner.load_state_dict(given))  # noqa: B023
        wrong += [] if "are missing, which other processes had" in said else [said]
    for in_parts in (True, False):
        if not in_parts:
            model = NETWORKS["convolutions"][0]()
            optimizer = OPTIMIZERS["SGD"](model.parameters())
            pruner = reprune.Pruner(model, optimizer, images(8), **SETTINGS, until=3, mode=mode)
        pruner.load_state_dict(states)
        mine = get_state_dict(pruner.model, optimizer)
        checkpoint.load({"model": mine[0], "optimizer": mine[1]}, checkpoint_id=mode)
        set_state_dict(pruner.model, optimizer, model_state_dict=mine[0], optim_state_dict=mine[1])
        for epoch in range(2, 4):
            epoch_of(pruner, epoch)
        plain = NETWORKS["convolutions"][0]()
        if mode == "shrink":
            reprune.apply(pruner.plan, plain)
        its = OPTIMIZERS["SGD"](plain.parameters())
        plain.load_state_dict(values)
        its.load_state_dict(state)
        for p, gradient in zip(plain.parameters(), gradients, strict=True):
            p.grad = gradient
        wrong += differences(pruner.model, optimizer, plain, its)
        wrong += [] if pruner.plan.to_json() == plan else ["plan"]
    return wrong


def in_one_piece(pruner):
    """A plain model and optimizer with the values of sharded ones."""
    plain = NETWORKS["convolutions"][0]()
    if pruner.mode == "shrink":
        reprune.apply(pruner.plan, plain)
    plain.load_state_dict({key: whole(t) for key, t in pruner.model.state_dict().items()})
    its = OPTIMIZERS["SGD"](plain.parameters())
    its.load_state_dict(tree_map_only(DTensor, whole, pruner.optimizer.state_dict()))
    for p, q in zip(plain.parameters(), pruner.model.parameters(), strict=True):
        p.grad = whole(q.grad)
    return plain, its


def interrupted():
    """What each process meets at an event where one fails, and how the training goes on."""
    rank, found = dist.get_rank(), {}

    def fails_to_shard(model):
        shard(model)
        if rank == 1:
            raise MemoryError("of process 1")

    for mode in ("mask", "shrink"):
        model, optimizer, pruner = begun(mode, until=2)
        cases = {"nan": lambda: sharded.local(model.expand.bias).fill_(torch.nan) if rank else None}  # noqa: B023
        if mode == "shrink":
            cases["shard"] = lambda: setattr(pruner.live.mode, "_shard", fails_to_shard)  # noqa: B023
        train(model, optimizer, images(8))
        sharded.settle(model)
        kept = sharded.local(model.expand.bias).clone()
        for name, breaks in cases.items():
            before = [sharded.local(p).clone() for p in model.parameters()]
            breaks()
            found[f"{mode} {name}"] = met(pruner.step)
            sharded.local(model.expand.bias).copy_(kept)
            now = [sharded.local(p) for p in model.parameters()]
            same = all(map(torch.equal, now, before)) and pruner.model is model and pruner.epoch == 0
            found[f"{mode} {name}"] += " | as before" if same else " | CHANGED"
        if mode == "shrink":
            pruner.live.mode._shard = shard
        found[f"{mode} then"] = met(lambda: [epoch_of(pruner, epoch) for epoch in range(3)])  # noqa: B023
    return found
