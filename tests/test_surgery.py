"""Surgery: smaller layers, the optimizer carried along, nothing changed after an error."""

import copy
import inspect

import numpy as np
import pytest
import torch
from torch import nn

import reprune
from tests.helpers.networks import images, small_resnet

X = images(8)
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
}


def train(model, optimizer, steps):
    model.train()
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images(8, seed=step)), torch.arange(8) % 5)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("scope", ["internal", "all"])
def test_the_optimizer_is_carried_along(name, scope):
    """It holds exactly the live parameters, in their places, with the kept entries of every state."""
    model = small_resnet()
    decay = [p for n, p in model.named_parameters() if n.endswith("weight")]
    others = [p for n, p in model.named_parameters() if not n.endswith("weight")]
    optimizer = OPTIMIZERS[name]([{"params": decay}, {"params": others, "weight_decay": 0.0}])
    train(model, optimizer, 3)
    plan = reprune.make_plan(model, X, sparsity=0.5, scope=scope)
    assert plan.slices
    names = {id(p): n for n, p in model.named_parameters()}
    order = [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]
    states = {n: copy.copy(optimizer.state[p]) for n, p in model.named_parameters()}
    values = {n: p.detach().clone() for n, p in model.named_parameters()}

    reprune.apply(plan, model, optimizer)

    live = dict(model.named_parameters())
    assert [[id(p) for p in group["params"]] for group in optimizer.param_groups] == [
        [id(live[n]) for n in group] for group in order
    ]
    assert set(optimizer.state) == set(live.values())
    for n, parameter in live.items():
        kept = plan.slices.get(n, {})
        index = np.ix_(*(kept.get(d, np.arange(size)) for d, size in enumerate(values[n].shape)))
        assert torch.equal(parameter, values[n][index])
        for key, value in states[n].items():
            now = optimizer.state[parameter][key]
            if isinstance(value, torch.Tensor) and value.shape == values[n].shape:
                assert torch.equal(now, value[index])
            else:
                assert now == value
    losses = train(model, optimizer, 30)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_gradients_are_sliced_too():
    model = small_resnet()
    model(X).sum().backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters()}
    plan = reprune.make_plan(model, X, sparsity=0.5)
    reprune.apply(plan, model)
    for name, parameter in model.named_parameters():
        kept = plan.slices.get(name, {})
        index = np.ix_(*(kept.get(d, np.arange(size)) for d, size in enumerate(grads[name].shape)))
        assert torch.equal(parameter.grad, grads[name][index])


def test_a_loss_that_is_still_alive_does_no_harm():
    """The last iteration's graph holds the old parameters; the next backward pass must not meet them."""
    model = small_resnet()
    loss = model(X).sum()
    loss.backward()
    reprune.apply(reprune.make_plan(model, X, sparsity=0.5), model)
    model(X).sum().backward()
    assert loss is not None


def test_layers_remember_their_sizes():
    model = small_resnet()
    plan = reprune.make_plan(model, X, sparsity=0.5)
    reprune.apply(plan, model)
    kept = len(plan.keep["expand"])
    assert (model.expand.out_channels, model.norm.num_features) == (kept, kept)
    assert (model.depthwise.in_channels, model.depthwise.out_channels, model.depthwise.groups) == (kept,) * 3
    assert model.head.in_features == kept
    assert all(p.is_contiguous() for p in model.parameters())


def test_memory_format_and_flags_stay():
    model = small_resnet().to(memory_format=torch.channels_last)
    model.expand.weight.requires_grad_(False)
    reprune.apply(reprune.make_plan(model, X, sparsity=0.5), model)
    assert model.blocks[0].conv2.weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.expand.weight.requires_grad
    assert model.blocks[0].conv1.weight.requires_grad


def test_prune_takes_what_make_plan_takes():
    taken, made = (dict(inspect.signature(f).parameters) for f in (reprune.prune, reprune.make_plan))
    assert taken == made


def test_prune_leaves_the_original():
    model = small_resnet()
    before = copy.deepcopy(model.state_dict())
    small, plan = reprune.prune(model, X, sparsity=0.5)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())
    assert sum(p.numel() for p in small.parameters()) == plan.params[1] < plan.params[0]


def snapshot(model, optimizer):
    return (
        {name: (id(p), p.detach().clone()) for name, p in model.named_parameters()},
        [[id(p) for p in group["params"]] for group in optimizer.param_groups],
        {id(p): {k: id(v) for k, v in state.items()} for p, state in optimizer.state.items()},
        str(model),
    )


def test_after_an_error_all_is_as_it_was():
    model, other = small_resnet(), small_resnet(inner=20)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer, 1)
    plan = reprune.make_plan(model, X, sparsity=0.5)
    foreign = reprune.make_plan(other, X, sparsity=0.5)
    factored = torch.optim.Adafactor(model.parameters(), lr=0.1)
    train(model, factored, 1)
    cases = [
        (foreign, optimizer, "plan: made for a model whose .* has shape"),
        (
            plan,
            torch.optim.SGD(other.parameters(), lr=0.1),
            "optimizer: expected one that holds parameters of",
        ),
        (plan, factored, "optimizer: state 'row_var' of .* has shape"),
    ]
    for a_plan, an_optimizer, message in cases:
        before = snapshot(model, an_optimizer)
        with pytest.raises(ValueError, match=message):
            reprune.apply(a_plan, model, an_optimizer)
        after = snapshot(model, an_optimizer)
        assert after[1:] == before[1:]
        for name, (identity, value) in before[0].items():
            assert after[0][name][0] == identity
            assert torch.equal(after[0][name][1], value)


def test_a_plan_can_be_applied_only_once():
    model = small_resnet()
    plan = reprune.make_plan(model, X, sparsity=0.5)
    reprune.apply(plan, model)
    with pytest.raises(ValueError, match="before it is pruned"):
        reprune.apply(plan, model)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")  # newer versions call it deprecated
def test_scripted_modules_that_keep_their_channels_do_not_disturb():
    scripted = torch.jit.script(nn.Sequential(nn.ReLU(), nn.Conv2d(6, 4, 1)))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), scripted)
    small, plan = reprune.prune(model, X[:2], keep={"0": 4}, calibrate=X)
    assert small[0].out_channels == small[2].in_channels == 4
    assert not {p.data_ptr() for p in small.parameters()} & {p.data_ptr() for p in model.parameters()}
    assert all(p.is_leaf and p.requires_grad for p in small.parameters())
    with torch.no_grad():
        assert (small(X) - model(X)).square().mean() < 0.9 * model(X).var()
    reprune.apply(plan, model)
    assert model(X).shape == small(X).shape
