"""Mask mode takes channels out exactly where weights are computed, or refuses; NaN is noticed at an event."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize
from torch.optim.swa_utils import AveragedModel

import reprune
from tests.helpers.loops import X, one_step, start
from tests.helpers.networks import small_resnet

SERIES = torch.randn(4, 1, 20, generator=torch.Generator().manual_seed(0))
SETTINGS = {"sparsity": 0.5, "rule": "uniform", "interval": 1, "until": 2, "regrow": 0.4}


class PlusLowRank(nn.Module):
    def __init__(self, rows, columns):
        super().__init__()
        self.left, self.right = nn.Parameter(torch.randn(rows, 2)), nn.Parameter(torch.randn(2, columns))

    def forward(self, weight):
        return weight + (self.left @ self.right)[:, :, None]


class UnitRows(nn.Module):
    def forward(self, weight):
        return weight / weight.flatten(1).norm(dim=1)[:, None, None]


class NeverZero(nn.Module):
    def forward(self, weight):
        return weight.exp()


def plain(layer):
    return layer


def low_rank(layer):
    parametrize.register_parametrization(layer, "weight", PlusLowRank(*layer.weight.shape[:2]))
    return layer


def by(parametrization):
    def change(layer):
        parametrize.register_parametrization(layer, "weight", parametrization())
        return layer

    return change


WEIGHTS = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm of inputs": lambda layer: parametrizations.weight_norm(layer, dim=1),
    "weight_norm plus low rank": lambda layer: low_rank(parametrizations.weight_norm(layer)),
    "orthogonal": parametrizations.orthogonal,
    "low rank": low_rank,
}


def network(first, second, between=nn.ReLU):
    torch.manual_seed(0)
    layers = (
        nn.Conv1d(1, 16, 3),
        between(),
        first(nn.Conv1d(16, 12, 3)),
        between(),
        second(nn.Conv1d(12, 8, 3)),
    )
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 5))


def trained(model, mode):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-3)
    pruner = reprune.Pruner(model, optimizer, SERIES, mode=mode, **SETTINGS)
    for _ in range(3):
        optimizer.zero_grad()
        model(SERIES).square().mean().backward()
        optimizer.step()
        pruner.step()
    return pruner


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_masked_and_small_networks_train_alike(name, place):
    """In training both modes are one network, also where channels come back."""
    both = (WEIGHTS[name], plain) if place == "before" else (plain, WEIGHTS[name])
    small, masked = network(*both), network(*both)
    plans = [trained(small, "shrink").plan, (pruner := trained(masked, "mask")).plan]
    assert plans[0].to_json() == plans[1].to_json()
    assert any(sum(event.regrown.values()) for event in pruner.history)
    small.eval(), masked.eval()
    expected = small(SERIES)
    torch.testing.assert_close(masked(SERIES), expected, rtol=1e-3, atol=1e-4)
    pruner.finalize()
    assert str(masked) == str(small)
    torch.testing.assert_close(masked(SERIES), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "model,reason",
    [
        (lambda: network(by(UnitRows), plain), r"2.parametrizations.weight.0 gives NaN"),
        (lambda: network(plain, by(NeverZero), nn.Sigmoid), "the model is not as it is without them"),
        (
            lambda: nn.Sequential(nn.Conv1d(1, 8, 3), nn.BatchNorm1d(8, eps=0.0), nn.Conv1d(8, 4, 3)),
            r"1 gives NaN",
        ),
    ],
)
def test_what_zeros_do_not_take_out_is_refused_at_once(model, reason):
    model = model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with pytest.raises(ValueError, match=f"'mask' sets .*{reason}.*use mode='shrink'.*are computed"):
        reprune.Pruner(model, optimizer, SERIES, mode="mask", **SETTINGS)
    reprune.Pruner(model, optimizer, SERIES, **SETTINGS)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


PLACES = {
    "model: the weight of blocks.0.conv1": lambda m, o, ema: m.blocks[0].conv1.weight,
    "model: the weight of head": lambda m, o, ema: m.head.weight,  # stays whole
    "model: the bias of blocks.1.bn1": lambda m, o, ema: m.blocks[1].bn1.bias,
    "model: the running_var of norm": lambda m, o, ema: m.norm.running_var,
    "model: the weight of stem.0 in copies.0.": lambda m, o, ema: ema.module.stem[0].weight,
    "optimizer: state 'momentum_buffer' of head.bias": lambda m, o, ema: o.state[m.head.bias][
        "momentum_buffer"
    ],
}


@pytest.mark.parametrize("mode,rule", [("shrink", "bn"), ("mask", "uniform")])
def test_values_that_are_not_finite(mode, rule):
    model = small_resnet()
    model.register_buffer("bound", torch.tensor([-torch.inf, 0.0]))  # meant so
    ema = AveragedModel(model, use_buffers=True)
    _, optimizer, pruner = start(mode, model=model, rule=rule, copies=[ema])
    one_step(model, optimizer)
    pruner.step()
    one_step(model, optimizer)
    model.head.weight.grad[0] = torch.inf  # as mixed precision leaves it behind, when it skips a step
    for bad, (said, place) in zip([torch.nan, torch.inf] * 3, PLACES.items(), strict=True):
        tensor = place(model, optimizer, ema).data.flatten()
        number = int(tensor.nonzero()[0])  # in mask mode not one that is held at zero
        kept = tensor[number].clone()
        place(model, optimizer, ema).data.view(-1)[number] = bad
        before = [t.clone() for t in model.state_dict().values()]
        with pytest.raises(ValueError, match=f"{said}.* has NaN or infinite values; nothing was changed"):
            pruner.step()
        for a, b in zip(model.state_dict().values(), before, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        place(model, optimizer, ema).data.view(-1)[number] = kept
    assert pruner.epoch == 1
    assert pruner.step()


def test_another_dtype_is_noticed():
    model, _, pruner = start()
    model.half()
    with pytest.raises(
        ValueError, match=r"stem.0.weight should have dtype torch.float32 and has torch.float16"
    ):
        pruner.step()
    model.float()
    one_step(model, pruner.optimizer)
    assert pruner.step()
    assert model.eval()(X).isfinite().all()
