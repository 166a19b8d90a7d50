"""Trainings of a model in parts that are pruned on the way, beside those of the model in one piece."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

import reprune
from tests.helpers.sharded import NETWORKS, OPTIMIZERS, differences, met, shard, sharded_model, train, whole

EVENTS = 6


def masked():
    """Where masked trainings differ, by network: after every event, and from the end on."""
    found = {}
    for name, kind in (("convolutions", "SGD"), ("tokens", "AdamW")):
        build, inputs, settings = NETWORKS[name]
        settings = {"sparsity": 0.5, "until": EVENTS, "interval": 1, "regrow": 0.5, "mode": "mask", **settings}
        plain, model = build(), sharded_model(build)
        its, optimizer = (OPTIMIZERS[kind](one.parameters()) for one in (plain, model))
        for one in (plain, model):
            one.eval()
        theirs = reprune.Pruner(plain, its, inputs(0), **settings)
        with torch.no_grad():
            model(inputs(0))  # after which the parameters of the root are whole
        pruner = reprune.Pruner(model, optimizer, inputs(0), **settings)
        wrong, regrown = [], 0
        for epoch in range(EVENTS + 1):
            for one, its_own, its_pruner in ((plain, its, theirs), (model, optimizer, pruner)):
                train(one, its_own, inputs(epoch))
                if its_pruner.step() != (epoch < EVENTS):
                    wrong.append(f"{epoch} event")
            wrong += [] if pruner.plan.to_json() == theirs.plan.to_json() else [f"{epoch} plan"]
            if epoch in (1, EVENTS - 1, EVENTS):
                wrong += [f"{epoch} {one}" for one in differences(model, optimizer, plain, its)]
        regrown = sum(sum(event.regrown.values()) for event in pruner.history)
        wrong += [] if regrown else ["nothing was regrown"]
        plan = pruner.finalize()
        small = reprune.fsdp.apply(plan, model, shard, optimizer)
        theirs.finalize()
        wrong += differences(small, optimizer, plain, its)
        train(plain, its, inputs(9))
        train(small, optimizer, inputs(9))
        wrong += differences(small, optimizer, plain, its)
        found[name] = wrong
    return found
