"""The pruner in other people's loops: optimizers, AMP, accumulation, EMA, compiled models; and its errors."""

import copy

import numpy as np
import pytest
import torch
from networks import images, small_resnet
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import reprune
from reprune.graph import named_tensors
from reprune.pruner.regrowth import draw, residual_norms
from reprune.pruner.schedule import Schedule

X = images(2)


def start(mode="shrink", optimizer=None, model=None, **settings):
    model = small_resnet() if model is None else model
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    settings = {"sparsity": 0.5, "interval": 1, "until": 4, **settings}
    return model, optimizer, reprune.Pruner(model, optimizer, X, mode=mode, **settings)


def one_step(model, optimizer, seed=0):
    model.train()
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images(8, seed=seed)), torch.arange(8) % 5).backward()
    optimizer.step()


def test_schedule():
    schedule = Schedule(interval=3, until=10, regrow=0.4)
    assert [epoch for epoch in range(1, 20) if schedule.fires(epoch)] == [3, 6, 9]
    assert schedule.share(5) == pytest.approx(0.2)  # halfway along the cosine
    assert schedule.share(9) == 0.0
    assert Schedule(2, 4, 0.3).share(2) == pytest.approx(0.15)


def test_residuals_are_those_of_least_squares():
    rng = np.random.default_rng(0)
    kept, candidates = rng.normal(size=(5, 12)), rng.normal(size=(7, 12))
    kept[3] = 2 * kept[1] - kept[0]  # not of full rank
    candidates[2] = kept[:3].sum(axis=0)
    for scale in (1.0, 1e-20, 1e20):
        norms = residual_norms(kept * scale, candidates)
        for w, norm in zip(candidates, norms, strict=True):
            solution = np.linalg.lstsq(kept.T, w, rcond=None)[0]
            assert norm == pytest.approx(np.linalg.norm(w - kept.T @ solution), abs=1e-12)
    assert norms[2] < 1e-12
    np.testing.assert_allclose(
        residual_norms(np.zeros((2, 12)), candidates), np.linalg.norm(candidates, axis=1)
    )


def test_draws_follow_the_softmax():
    norms = np.array([0.0, 1.0, 2.0])
    trials = 4000
    firsts = np.zeros(3)
    pairs = np.zeros(3)  # by which of the three is left out
    for seed in range(trials):
        firsts[draw(norms, 1, seed, 0, "layer")[0]] += 1
        pairs[3 - draw(norms, 2, seed, 1, "layer").sum()] += 1
    p = np.exp(norms) / np.exp(norms).sum()
    np.testing.assert_allclose(firsts / trials, p, atol=4 * 0.5 / trials**0.5)
    left = [
        sum(p[a] * p[b] / (1 - p[a]) for a in range(3) for b in range(3) if {a, b, k} == {0, 1, 2})
        for k in range(3)
    ]
    np.testing.assert_allclose(pairs / trials, left, atol=4 * 0.5 / trials**0.5)
    assert draw(norms, 2, 0, 0, "a").tolist() == draw(norms, 2, 0, 0, "a").tolist()
    many = np.zeros(50)
    assert draw(many, 9, 0, 0, "a").tolist() != draw(many, 9, 0, 1, "a").tolist()


def test_as_many_come_back_as_the_schedule_says():
    model, optimizer, pruner = start(until=6, regrow=0.5)
    sizes = {"blocks.0.conv1": 16, "blocks.1.conv1": 20, "blocks.2.conv1": 24}
    for epoch in range(1, 7):
        one_step(model, optimizer, epoch)
        pruner.step()
        event = pruner.history[-1]
        for name, size in sizes.items():
            most = int(pruner.schedule.share(epoch) * size)
            assert event.regrown[name] == min(most, size - event.kept[name])
    none, optimizer, pruner = start(regrow=0)
    for epoch in range(4):
        one_step(none, optimizer, epoch)
        pruner.step()
    assert not any(sum(event.regrown.values()) for event in pruner.history)


OPTIMIZERS = {
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
}


@pytest.mark.parametrize("mode", ["shrink", "mask"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_groups_and_schedulers(name, mode):
    model = small_resnet()
    decay = [p for n, p in model.named_parameters() if n.endswith("weight")]
    others = [p for n, p in model.named_parameters() if not n.endswith("weight")]
    optimizer = OPTIMIZERS[name]([{"params": decay}, {"params": others, "weight_decay": 0.0}])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8)
    _, _, pruner = start(mode, optimizer, model)
    for epoch in range(6):
        one_step(model, optimizer, epoch)
        scheduler.step()
        pruner.step()
    pruner.finalize()
    one_step(model, optimizer)
    live = dict(model.named_parameters())
    assert [id(p) for g in optimizer.param_groups for p in g["params"]] == [
        id(live[n]) for weights in (True, False) for n in live if n.endswith("weight") == weights
    ]
    for parameter, state in optimizer.state.items():
        for value in state.values():
            assert not isinstance(value, torch.Tensor) or value.numel() == 1 or value.shape == parameter.shape
    assert optimizer.param_groups[1]["weight_decay"] == 0.0


def test_state_that_cannot_be_cut():
    model = small_resnet()
    optimizer = torch.optim.Adafactor(model.parameters(), lr=0.01)
    _, _, pruner = start("shrink", optimizer, model)
    one_step(model, optimizer)
    before = str(model)
    with pytest.raises(ValueError, match=r"state 'row_var' of .* has shape"):
        pruner.step()
    assert (str(model), pruner.epoch, len(pruner.history)) == (before, 0, 0)
    _, _, pruner = start("mask", optimizer, model)
    assert pruner.step()


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_gradients_that_are_being_accumulated(mode):
    """An event between two backward passes of one step: gradients of what stays stay, of what comes back are
    0."""
    model, optimizer, pruner = start(mode, regrow=0.4)
    one_step(model, optimizer)
    pruner.step()
    for epoch in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images(8, seed=epoch)), torch.arange(8) % 5).backward()
        for p in model.parameters():
            p.grad.normal_()  # where an activation is not flat at 0, masked channels have gradients
        was = {n: p.grad.clone() for n, p in model.named_parameters()}
        before, sizes = pruner.plan.slices, pruner._members.sizes
        pruner.step()
        after = pruner.plan.slices
        for n, p in model.named_parameters():
            full = np.zeros(sizes[n], np.float32)
            if mode == "shrink":
                full[at(before, n, sizes)] = was[n]
                np.testing.assert_array_equal(p.grad, full[at(after, n, sizes)])
            else:
                both = np.zeros(sizes[n], bool)
                both[at(before, n, sizes)] = True
                stays = np.zeros(sizes[n], bool)
                stays[at(after, n, sizes)] = True
                np.testing.assert_array_equal(p.grad, np.where(both & stays, was[n], 0))
        nn.functional.cross_entropy(model(images(8)), torch.arange(8) % 5).backward()
        optimizer.step()


def at(slices, name, sizes):
    kept = slices.get(name, {})
    return np.ix_(*(kept.get(dim, np.arange(size)) for dim, size in enumerate(sizes[name])))


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_ema_copies_go_along(mode):
    model = small_resnet()
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    _, optimizer, pruner = start(mode, model=model, copies=[ema], regrow=0.4)
    expected = {n: t.detach().clone() for n, t in named_tensors(ema.module).items()}
    sizes = pruner._members.sizes
    for epoch in range(5):
        slices = pruner.plan.slices
        one_step(model, optimizer, epoch)
        ema.update_parameters(model)
        seen = {n: t.detach().numpy() for n, t in named_tensors(ema.module).items() if t.dim()}
        for name, t in seen.items():
            where = at(slices, name, sizes)
            expected[name].numpy()[where] = t if mode == "shrink" else t[where]
        pruner.step()
        slices = pruner.plan.slices
        for name, t in named_tensors(ema.module).items():
            if t.dim():
                where = at(slices, name, sizes)
                np.testing.assert_array_equal(
                    t.detach() if mode == "shrink" else t.detach().numpy()[where],
                    expected[name].numpy()[where],
                )
    pruner.finalize()
    assert str(ema.module) == str(model)
    ema.update_parameters(model)
    assert ema.module.eval()(X).isfinite().all()


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_mixed_precision(mode):
    """bfloat16 autocast; a scaler that finds an infinity skips the optimizer's step, and nothing is held
    wrongly."""
    model, optimizer, pruner = start(mode)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for epoch in range(5):
        model.train()
        for step in range(2):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = nn.functional.cross_entropy(model(images(8, seed=epoch)), torch.arange(8) % 5)
            scaler.scale(loss).backward()
            if step and epoch == 1:
                model.head.bias.grad[0] = torch.inf
            scaler.step(optimizer)
            scaler.update()
        pruner.step()
    pruner.finalize()
    assert scaler.get_scale() == 2.0
    assert all(p.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_compiled_models(mode):
    """Mask mode changes no shape: nothing compiles again.  Shrink mode compiles again by itself after an
    event."""
    model = small_resnet()
    graphs = []

    def backend(graph, example):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend, dynamic=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = reprune.Pruner(compiled, optimizer, X, sparsity=0.5, interval=1, until=3, mode=mode)
    counts = []
    for epoch in range(5):
        one_step(compiled, optimizer, epoch)
        counts.append(len(graphs))
        pruner.step()
    assert len(set(counts)) == 1 if mode == "mask" else counts[-1] > counts[0]
    pruner.finalize()
    compiled.eval()
    assert torch.allclose(compiled(X), model(X), atol=1e-5)
    torch._dynamo.reset()


def test_the_small_model_is_saved_at_any_time(tmp_path):
    model, optimizer, pruner = start()
    for epoch in range(2):
        one_step(model, optimizer, epoch)
        pruner.step()
        reprune.save(model, tmp_path / "now.safetensors")
        loaded = reprune.load(tmp_path / "now.safetensors", small_resnet(seed=1))
        assert torch.equal(loaded(X), model.eval()(X))


def test_masked_channels_behind_a_sigmoid():
    """It makes one half of a zero: what the next layer takes in of a dropped channel must be held at zero."""
    models, pruners, optimizers = [], [], []
    for mode in ("shrink", "mask"):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Sigmoid(), nn.Conv2d(16, 5, 3)
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9, weight_decay=5e-4)
        _, _, pruner = start(mode, optimizer, model, rule="uniform")
        models.append(model), pruners.append(pruner), optimizers.append(optimizer)
    for epoch in range(5):
        for model, pruner, optimizer in zip(models, pruners, optimizers, strict=True):
            one_step(model, optimizer, epoch)
            pruner.step()
            one_step(model, optimizer, 10 + epoch)
            model.eval()
        assert pruners[0].plan.to_json() == pruners[1].plan.to_json()
        assert torch.allclose(models[0](X), models[1](X), rtol=0, atol=1e-5)


def test_the_final_channels_are_certified(monkeypatch):
    """What the probe at the start did not see is seen before the structure becomes final."""

    class RollByHalf(nn.Sequential):
        def forward(self, x):
            for layer in self[:2]:
                x = layer(x)
            return self[2](torch.roll(x, 4, dims=1) * x).mean((2, 3))

    monkeypatch.setattr("reprune.graph._probe", lambda graph: graph.everything())
    torch.manual_seed(0)
    model = RollByHalf(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 5, 3))
    _, optimizer, pruner = start(model=model, until=1, rule="uniform", sparsity=0.25)
    one_step(model, optimizer)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"would not be the network that was traced .* nothing was changed"):
        pruner.step()
    assert (pruner.epoch, len(pruner.history)) == (0, 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    one_step(model, optimizer)


def test_history(tmp_path):
    model, optimizer, pruner = start()
    for epoch in range(4):
        one_step(model, optimizer, epoch)
        pruner.step()
    lines = str(pruner.history).splitlines()
    assert len(lines) == 5
    assert lines[0].split()[:3] == ["epoch", "sparsity", "kept"]
    assert [int(line.split()[0]) for line in lines[1:]] == [1, 2, 3, 4]
    for event in pruner.history:
        assert 0 < event.coverage <= 1
        assert 0 < event.flops <= event.flops_regrown <= 1
        assert event.seconds > 0
    figure = pruner.history.plot()
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [4, 4, 4]
    figure.savefig(tmp_path / "history.png")


def test_errors_at_the_start():
    model = small_resnet()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cases = [
        ({"until": 0}, "until: expected a number of epochs"),
        ({"interval": 5, "until": 4}, "until: expected at least interval=5, or no event ever comes; got 4"),
        ({"regrow": 1.5}, "regrow: expected a number from 0 to 1; got 1.5"),
        ({"mode": "both"}, "mode: expected one of 'shrink', 'mask', got 'both'"),
        ({"flops": 0.5}, "expected exactly one target .* got sparsity, flops"),
        ({"sparsity": None}, "expected exactly one target .* got none"),
        ({"copies": [small_resnet(inner=20)]}, "copies: number 0 has other tensors"),
        ({"round_to": 0}, "round_to: expected an integer of at least 1"),
    ]
    for change, message in cases:
        with pytest.raises(ValueError, match=message):
            start(model=model, optimizer=optimizer, **change)
    other = torch.optim.SGD(small_resnet().parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"optimizer: expected one that holds .* stem.0.weight is not"):
        start(model=model, optimizer=other)


def test_errors_on_the_way():
    model, optimizer, pruner = start()
    with pytest.raises(ValueError, match="finalize: no event came in 0 epochs"):
        pruner.finalize()
    one_step(model, optimizer)
    pruner.step()
    before = copy.deepcopy(model.state_dict())

    mine = optimizer.param_groups[0]["params"]
    optimizer.param_groups[0]["params"] = mine[1:]
    with pytest.raises(ValueError, match=r"optimizer: expected one that holds .* stem.0.weight is not"):
        pruner.step()
    optimizer.param_groups[0]["params"] = mine

    head, model.head = model.head, nn.Linear(model.head.in_features + 1, 5)
    with pytest.raises(ValueError, match=r"changed behind the pruner's back: head.weight should have shape"):
        pruner.step()
    model.head = head
    model.extra = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"extra.bias should have shape none: it was not there"):
        pruner.step()
    del model.extra

    weight = model.blocks[0].conv1.weight
    kept = weight.detach().clone()
    weight.data[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"the weight of blocks.0.conv1 has NaN"):
        pruner.step()
    weight.data.copy_(kept)
    assert (pruner.epoch, len(pruner.history)) == (1, 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert pruner.step()
    with pytest.warns(UserWarning, match=r"ended after 2 epochs, before the last event \(epoch 4\)"):
        plan = pruner.finalize()
    assert pruner.finalize().to_json() == plan.to_json()
    assert not pruner.step()


def test_masked_channels_that_are_no_longer_zero():
    model, optimizer, pruner = start("mask")
    one_step(model, optimizer)
    pruner.step()
    model.load_state_dict(small_resnet(seed=1).state_dict())
    with pytest.raises(ValueError, match=r"dropped channels of .* are not zero any more"):
        pruner.step()


def test_shrink_mode_and_a_wrapped_model():
    class DistributedDataParallel(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    wrapped = DistributedDataParallel(small_resnet())
    with pytest.raises(ValueError, match=r"pass the module inside DistributedDataParallel"):
        start("shrink", model=wrapped)
    start("mask", model=wrapped)
