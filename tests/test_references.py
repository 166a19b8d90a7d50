"""What else refers to a parameter: hooks, attributes, lists and buffers of optimizers, shared and odd state.

It follows the smaller parameter, or it is refused with a reason and nothing is changed.
"""

import numpy as np
import pytest
import torch
from torch import nn

import reprune

X = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
SETTINGS = {"sparsity": 0.5, "rule": "uniform"}


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


PLAN = reprune.make_plan(network(), X, **SETTINGS)
KEPT = PLAN.slices["0.weight"][0]


def train(model, optimizer, steps=1):
    for _ in range(steps):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def start(model, optimizer, mode="shrink", **settings):
    return reprune.Pruner(model, optimizer, X, interval=1, until=2, mode=mode, **SETTINGS, **settings)


def fingerprint(model, optimizer):
    held = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
    return [(id(p), p.detach().clone().numpy().tobytes()) for p in model.parameters()], held


HOOKS = {
    "register_hook": lambda p: p.register_hook(lambda grad: grad * 0),
    "register_post_accumulate_grad_hook": lambda p: p.register_post_accumulate_grad_hook(lambda q: None),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_on_parameters(kind):
    model = network()
    optimizer = sgd(model)
    HOOKS[kind](model[3].bias)  # which stays whole, and its hook stays
    handle = HOOKS[kind](model[0].weight)
    said = rf"parameters without hooks; got 0.weight with one \({kind}\).*register it again"
    before = fingerprint(model, optimizer)
    for attempt in (
        lambda: reprune.apply(PLAN, model),
        lambda: reprune.apply(PLAN, model, optimizer),
        lambda: start(model, optimizer),
    ):
        with pytest.raises(ValueError, match=said):
            attempt()
    assert fingerprint(model, optimizer) == before

    pruner = start(model, optimizer, "mask")  # changes no identity, so the hooks go on until the end
    for _ in range(2):
        train(model, optimizer)
        pruner.step()
    with pytest.raises(ValueError, match=said):
        pruner.finalize()
    handle.remove()
    pruner.finalize()
    assert len(model[0].weight) == 4
    assert model[3].bias._backward_hooks or model[3].bias._post_accumulate_grad_hooks


def test_a_hook_registered_after_the_start_is_refused():
    model = network()
    optimizer = sgd(model)
    pruner = start(model, optimizer)
    model[1].bias.register_hook(lambda grad: grad)
    before = fingerprint(model, optimizer)
    with pytest.raises(ValueError, match=r"without hooks; got 1.bias"):
        pruner.step()
    assert fingerprint(model, optimizer) == before
    assert pruner.epoch == 0


def test_attributes_of_parameters():
    """Marks stay, tensors of the parameter's shape are sliced, references are refused."""
    model = network()
    weight = model[0].weight
    weight.decays, weight.start = True, weight.detach().clone()
    reprune.apply(PLAN, model)
    assert model[0].weight.decays
    assert torch.equal(model[0].weight.start, weight.start[KEPT])
    for value in (weight, [weight], {"steps": sgd(model)}, torch.zeros(3)):
        other = network()
        other[0].weight.mark = value
        with pytest.raises(ValueError, match=r"got 0.weight with the attribute 'mark'"):
            reprune.apply(PLAN, other)


def test_optimizers_in_the_backward_pass():
    """PyTorch's own way to have them."""
    from torch.distributed.optim import _apply_optimizer_in_backward

    model = network()
    _apply_optimizer_in_backward(torch.optim.SGD, model.parameters(), {"lr": 0.1})
    with pytest.raises(ValueError, match=r"got 0.weight with the attribute '_in_backward_optimizers'"):
        reprune.apply(PLAN, model)


class Own(torch.optim.SGD):
    """SGD with something else by `keep` (self, its parameters)."""

    def __init__(self, params, keep):
        params = list(params)
        super().__init__(params, lr=0.1, momentum=0.9)
        keep(self, params)


def keep_flat(self, params):
    """All parameters lie in one memory."""
    self.flat = torch.cat([p.detach().flatten() for p in params])
    for p, part in zip(params, self.flat.split([p.numel() for p in params]), strict=True):
        p.data = part.view_as(p)


class Holder:
    __slots__ = ("first",)


def keep_in_slots(self, params):
    self.holder = Holder()
    self.holder.first = {"deep": (params[0],)}


REFERENCES = {
    "a list": (lambda self, p: setattr(self, "mine", list(p)), r"Own.mine\[0\], which refers to 0.weight"),
    "a dictionary": (lambda self, p: setattr(self, "ranks", dict.fromkeys(p, 0)), r"Own.ranks \(a key\)"),
    "in an object": (keep_in_slots, r"Own.holder.first\['deep'\]\[0\]"),
    "in a group": (
        lambda self, p: self.param_groups[0].update(also=p[:1]),
        r"param_groups\[0\]\['also'\]\[0\]",
    ),
    "memory": (keep_flat, "Own.flat, which refers to"),
    "its size": (lambda self, p: setattr(self, "last", torch.zeros(sum(map(torch.numel, p)))), "Own.last"),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_references_of_an_optimizer(name):
    keep, said = REFERENCES[name]
    model = network()
    optimizer = Own(model.parameters(), keep)
    before = fingerprint(model, optimizer)
    for attempt in (
        lambda: reprune.apply(PLAN, model, optimizer),
        lambda: start(model, optimizer),
        lambda: start(model, optimizer, "mask"),
    ):
        with pytest.raises(ValueError, match=f"keeps parameters in its param_groups only; got .*{said}"):
            attempt()
    assert fingerprint(model, optimizer) == before


def test_a_list_that_an_optimizer_shares_with_its_group():
    """As LBFGS has it: it is changed in place."""
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)
    reprune.apply(PLAN, model, optimizer)
    assert [id(p) for p in optimizer._params] == [id(p) for p in model.parameters()]
    before = [p.detach().clone() for p in model.parameters()]

    def closure():
        optimizer.zero_grad()
        loss = model(X).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert not any(torch.equal(p, was) for p, was in zip(model.parameters(), before, strict=True))


def set_state(key, value):
    def change(state, p):
        state[key] = value(p)

    return change


STATES = {
    "factored": (set_state("row", lambda p: torch.zeros(p.shape[:1])), "'row' of 0.weight, .*has shape"),
    "a tuple": (
        set_state("pair", lambda p: (torch.zeros_like(p), 1)),
        "'pair' of 0.weight, .*is a tuple of tensors",
    ),
    "nested": (
        set_state("deep", lambda p: {"a": [torch.zeros(2)]}),
        "'deep' of 0.weight, .*is a dict of tensors",
    ),
    "an array": (set_state("array", lambda p: np.zeros(p.shape)), "'array' of 0.weight, .*is an array"),
    "a subclass": (
        set_state("own", lambda p: torch.zeros_like(p).as_subclass(type("Coded", (torch.Tensor,), {}))),
        "'own' of 0.weight, .*is a Coded",
    ),
    "one tensor twice": (
        lambda state, p: state.update(a=(x := torch.zeros_like(p)), b=x),
        "'b' of 0.weight shares its memory with state 'a' of 0.weight",
    ),
}


@pytest.mark.parametrize("name", STATES)
def test_state_that_cannot_follow(name):
    change, said = STATES[name]
    model = network()
    optimizer = sgd(model)
    pruner = start(model, optimizer)
    train(model, optimizer)
    change(optimizer.state[model[0].weight], model[0].weight)
    before = fingerprint(model, optimizer)
    for attempt in (
        lambda: reprune.apply(PLAN, model, optimizer),
        pruner.step,
        lambda: start(model, optimizer),
    ):
        with pytest.raises(ValueError, match=f"optimizer: state {said}"):
            attempt()
    assert fingerprint(model, optimizer) == before
    assert optimizer.state[model[0].weight]


def test_state_that_has_the_shape_by_chance():
    """The factor [n, n] of a weight [n, n] is no momentum, as those of other weights show."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 6, bias=False), nn.ReLU(), nn.Linear(6, 6, bias=False), nn.Linear(6, 2)
    )
    optimizer = sgd(model)
    for p in model.parameters():
        optimizer.state[p]["left"] = torch.eye(len(p))
    x = torch.randn(4, 6)
    plan = reprune.make_plan(model, x, layers="linear", **SETTINGS)
    with pytest.raises(ValueError, match=r"state 'left' of 0.weight, .*has the parameter's shape by chance"):
        reprune.apply(plan, model, optimizer)
    pruner = reprune.Pruner(
        model, optimizer, x, interval=1, until=3, mode="mask", layers="linear", **SETTINGS
    )
    pruner.step()
    assert torch.equal(optimizer.state[model[0].weight]["left"], torch.eye(6))


def test_state_that_follows():
    """Of other dtypes, single numbers, plain values; parameters that the model has not, that stand in two
    groups, that are frozen."""
    model, alien = network(), nn.Parameter(torch.ones(3))
    alien.grad = torch.ones(3)
    model[1].weight.requires_grad_(False)
    parts = [{"params": [model[0].weight, model[1].weight]}, {"params": [model[1].bias, alien], "lr": 0.01}]
    optimizer = torch.optim.SGD([*parts, {"params": model[3].parameters()}], lr=0.1, momentum=0.9)
    train(model, optimizer)
    weight = model[0].weight
    state = optimizer.state[weight]
    half, count = torch.randn(weight.shape).bfloat16(), torch.arange(weight.numel()).view(weight.shape)
    state.update(half=half, count=count, step=torch.tensor(3), one=torch.ones(1), words=["a", 1], none=None)
    reprune.apply(PLAN, model, optimizer)
    now = optimizer.state[model[0].weight]
    assert torch.equal(now["half"], half[KEPT])
    assert torch.equal(now["count"], count[KEPT])
    assert {k: now[k] for k in ("words", "none")} == {"words": ["a", 1], "none": None}
    assert (now["step"], now["one"]) == (3, 1)
    assert [[id(p) for p in g["params"]] for g in optimizer.param_groups] == [
        [id(model[0].weight), id(model[1].weight)],
        [id(model[1].bias), id(alien)],
        [id(p) for p in model[3].parameters()],
    ]
    assert optimizer.param_groups[1]["lr"] == 0.01
    assert not model[1].weight.requires_grad
    train(model, optimizer)


def test_mask_mode_leaves_codes_alone():
    """A code 0 is not the number 0; where the state is a number, it is 0 and comes back."""
    model = network()
    optimizer = sgd(model)
    pruner = start(model, optimizer, "mask", regrow=0.0)
    train(model, optimizer)
    state = optimizer.state[model[0].weight]
    state["codes"] = torch.full(model[0].weight.shape, 127, dtype=torch.uint8)
    pruner.step()
    assert bool((state["codes"] == 127).all())
    gone = np.setdiff1d(np.arange(8), pruner.plan.slices["0.weight"][0])
    assert not state["momentum_buffer"][gone].any()


@pytest.mark.parametrize("thing", [None, [torch.optim.SGD], torch.optim.SGD, 3, nn.Linear(2, 2)])
def test_what_is_no_optimizer(thing):
    with pytest.raises(TypeError, match=r"optimizer: expected a torch\.optim\.Optimizer"):
        start(network(), thing)
    if thing is not None:
        with pytest.raises(TypeError, match=r"optimizer: expected a torch\.optim\.Optimizer"):
            reprune.apply(PLAN, network(), thing)
