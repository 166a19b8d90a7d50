"""Trainings of a model in parts that are pruned on the way, beside those of the model in one piece."""

import torch

import reprune
from tests.helpers.sharded import NETWORKS, OPTIMIZERS, differences, shard, sharded_model, train

EVENTS = 6
SETTINGS = {"sparsity": 0.5, "until": EVENTS, "interval": 1, "regrow": 0.5}


def pruned(name, kind, mode):
    """Where a training of one network, optimizer and mode differs from that in one piece."""
    build, inputs, settings = NETWORKS[name]
    settings = {**SETTINGS, **settings, "mode": mode}
    plain, model = build(), sharded_model(build)
    its, optimizer = (OPTIMIZERS[kind](one.parameters()) for one in (plain, model))
    theirs = reprune.Pruner(plain, its, inputs(0), **settings)
    with torch.no_grad():
        model(inputs(0))  # after which the parameters of the root are whole
    pruner = reprune.Pruner(
        model, optimizer, inputs(0), shard=shard if mode == "shrink" else None, **settings
    )
    wrong = []
    for epoch in range(EVENTS + 1):
        train(plain, its, inputs(epoch))
        train(model, optimizer, inputs(epoch))
        if not theirs.step() == pruner.step() == (epoch < EVENTS):
            wrong.append(f"{epoch}: event")
        if (model is pruner.model) != (mode == "mask" or epoch == EVENTS):
            wrong.append(f"{epoch}: model")
        model = pruner.model
        wrong += [] if pruner.plan.to_json() == theirs.plan.to_json() else [f"{epoch}: plan"]
        if epoch in (1, EVENTS - 1):
            wrong += [f"{epoch}: {one}" for one in differences(model, optimizer, plain, its)]
    wrong += [] if sum(sum(event.regrown.values()) for event in pruner.history) else ["nothing regrown"]
    plan = pruner.finalize()
    theirs.finalize()
    if mode == "mask":
        model = reprune.fsdp.apply(plan, model, shard, optimizer)
    train(plain, its, inputs(9))
    train(model, optimizer, inputs(9))
    return wrong + differences(model, optimizer, plain, its)


def trained():
    """Where trainings differ."""
    pairs = (("convolutions", "SGD"), ("tokens", "AdamW"))
    return {f"{name} {mode}": pruned(name, kind, mode) for name, kind in pairs for mode in ("mask", "shrink")}
