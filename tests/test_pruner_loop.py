"""The pruner in other people's loops: optimizers, AMP, accumulation, EMA, compiled models."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import reprune
from reprune.modules.slicing import named_tensors
from tests.helpers.loops import X, one_step, start
from tests.helpers.networks import images, small_resnet

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
        before, sizes = pruner.plan.slices, pruner.live.tracked.sizes
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


def test_channels_last_stays():
    """Of parameters, gradients and momentum, also where channels come back."""
    model = small_resnet().to(memory_format=torch.channels_last)
    _, optimizer, pruner = start(model=model, regrow=0.4)
    for epoch in range(3):
        one_step(model, optimizer, epoch)
        pruner.step()
        for p in model.parameters():
            for tensor in (p, p.grad, optimizer.state[p]["momentum_buffer"]):
                assert tensor.dim() != 4 or tensor.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_ema_copies_go_along(mode):
    model = small_resnet()
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    _, optimizer, pruner = start(mode, model=model, copies=[ema], regrow=0.4)
    expected = {n: t.detach().clone() for n, t in named_tensors(ema.module).items()}
    sizes = pruner.live.tracked.sizes
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
    """Mask mode changes no shape: nothing compiles again. Shrink mode compiles again by itself after an
    event."""
    model = small_resnet(blocks=1)
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
