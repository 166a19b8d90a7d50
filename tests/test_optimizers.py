"""What apply() and the pruner do with optimizers: each really trains, before and after."""

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.optim import PostLocalSGDOptimizer

import reprune
from reprune.modules.slicing import named_tensors
from tests.helpers.optimizer_cases import ANEW, CARRIED, CASES, NETWORKS, OWN, REFUSED

X = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 4
SETTINGS = {"sparsity": 0.5, "rule": "uniform", "scope": "all"}
PLANS = {}
pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # those of optimizers and wrappers
    pytest.mark.xdist_group("optimizers"),
]


@pytest.fixture(autouse=True, scope="module")
def environment():
    """One process is a group, for those that want one; torchao is not compiled."""
    with torch.compiler.set_stance("force_eager"):
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        yield
        dist.destroy_process_group()


def network(case):
    torch.manual_seed(0)
    return NETWORKS[case.network]()


def own(optimizer):
    """The user's, which a trainer of Lightning would step, save and load."""
    return optimizer.optimizer if type(optimizer).__name__.startswith("Lightning") else optimizer


def train(model, optimizer, steps):
    model.train()
    for _ in range(steps):

        def closure():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(X), Y)
            loss.backward()
            return loss

        closure()
        if isinstance(optimizer, PostLocalSGDOptimizer):
            optimizer.step()
        else:
            own(optimizer).step(closure)


def snapshot(model, optimizer, outcome):
    """Values, the optimizer's state if it is to be carried along, and whose state it is."""
    values = {name: t.detach().clone() for name, t in named_tensors(model).items()}
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    return values, copy.deepcopy(own(optimizer).state_dict()) if outcome == CARRIED else None, trained


def by_hand(case, snap, slices):
    """A small network and an optimizer that holds the sliced state, made without surgery."""
    values, state, trained = snap

    def sliced(name, value):
        if not isinstance(value, torch.Tensor) or value.shape != values[name].shape:
            return value
        kept = slices.get(name, {})
        return value[
            np.ix_(*(kept.get(dim, np.arange(size)) for dim, size in enumerate(value.shape)))
        ].clone()

    model = network(case)
    for name, tensor in named_tensors(model).items():
        path, _, last = name.rpartition(".")
        module, value = model.get_submodule(path), sliced(name, values[name])
        if isinstance(tensor, nn.Parameter):
            setattr(module, last, nn.Parameter(value, requires_grad=tensor.requires_grad))
        else:
            setattr(module, last, value)
        if isinstance(module, nn.BatchNorm2d):
            module.num_features = len(value) if value.dim() else module.num_features
    optimizer = case.make(model)
    if state is not None:
        numbers = [k for group in state["param_groups"] for k in group["params"]]
        names = dict(zip(numbers, trained, strict=True))
        for k, kinds in state["state"].items():
            kinds.update({kind: sliced(names[k], value) for kind, value in kinds.items()})
        own(optimizer).load_state_dict(state)
    return model, optimizer


def goes_on_as_by_hand(case, model, optimizer, snap, slices):
    assert slices
    values = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    live = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == live
    other, by = by_hand(case, snap, slices)
    train(model, optimizer, 2)
    train(other, by, 2)
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert name not in values or not torch.equal(p, values[name]), f"{name} is not trained"


def unchanged(model, optimizer, snap, was):
    assert all(torch.equal(t, snap[0][name]) for name, t in named_tensors(model).items())
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == was


def plan_of(case):
    if case.network not in PLANS:
        PLANS[case.network] = reprune.make_plan(network(case), X, layers=case.layers, **SETTINGS)
    return PLANS[case.network]


@pytest.mark.parametrize("name", CASES)
def test_apply(name):
    case = CASES[name]
    plan, model = plan_of(case), network(case)
    optimizer = case.make(model)
    train(model, optimizer, 2)
    snap = snapshot(model, optimizer, case.at_once)
    was = [id(p) for group in optimizer.param_groups for p in group["params"]]
    if case.at_once == CARRIED:
        reprune.apply(plan, model, optimizer)
        goes_on_as_by_hand(case, model, optimizer, snap, plan.slices)
    else:
        with pytest.raises(ValueError, match=REFUSED[case.at_once]):
            reprune.apply(plan, model, optimizer)
        unchanged(model, optimizer, snap, was)


def start(case, mode):
    model = network(case)
    optimizer = case.make(model)

    def pruner():
        settings = {"interval": 1, "until": 2, "regrow": 0.0, "layers": case.layers, "mode": mode}
        return reprune.Pruner(model, optimizer, X, **settings, **SETTINGS)

    return model, optimizer, pruner


def refused_at_the_latest_by_the_first_event(model, optimizer, pruner):
    def first():
        made = pruner()
        train(model, optimizer, 2)
        made.step()

    with pytest.raises(ValueError, match=REFUSED[OWN]):
        first()


@pytest.mark.parametrize("name", CASES)
def test_shrink(name):
    case = CASES[name]
    model, optimizer, pruner = start(case, "shrink")
    if case.at_once == OWN:
        refused_at_the_latest_by_the_first_event(model, optimizer, pruner)
        return
    first = pruner()
    train(model, optimizer, 2)
    snap = snapshot(model, optimizer, case.at_once)
    was = [id(p) for group in optimizer.param_groups for p in group["params"]]
    if case.at_once == CARRIED:
        first.step()
        goes_on_as_by_hand(case, model, optimizer, snap, first.plan.slices)
    else:
        for refused in (first.step, pruner):  # another is refused when it is made
            with pytest.raises(ValueError, match=REFUSED[case.at_once]):
                refused()
        unchanged(model, optimizer, snap, was)


@pytest.mark.parametrize("name", CASES)
def test_mask(name):
    case = CASES[name]
    model, optimizer, pruner = start(case, "mask")
    if case.masked == OWN:
        refused_at_the_latest_by_the_first_event(model, optimizer, pruner)
        return
    first = pruner()
    for _ in range(2):
        train(model, optimizer, 1)
        snap = snapshot(model, optimizer, case.masked)
        first.step()  # which says so where dropped channels are not zero any more
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first.finalize()
    said = [str(w.message) for w in caught if "it starts anew" in str(w.message)]
    assert len(said) == (case.masked == ANEW)
    goes_on_as_by_hand(case, model, optimizer, snap, first.plan.slices)


def test_the_table_of_the_documentation():
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    for name, case in CASES.items():
        assert f"| {name} | {case.at_once} | {case.masked} |" in page
