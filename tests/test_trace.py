"""One trace serves many plans, and is refused where it does not belong."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import reprune

X = torch.zeros(2, 3, 16, 16)


def network(middle=None):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3),
        nn.BatchNorm2d(16),
        middle or nn.ReLU(),
        nn.Conv2d(16, 12, 3),
        nn.Flatten(),
        nn.Linear(1728, 4),
    )


MODES = []
"""In which mode a :class:`Counting` module was run."""


class Counting(nn.Module):
    """Notes each run, outside of itself, as a model that changes is run once more."""

    def __init__(self, asks):
        super().__init__()
        self.asks = asks
        MODES.clear()

    def forward(self, x):
        MODES.append(self.training if self.asks else None)
        return x.relu()


def test_plans_are_those_of_inputs():
    model = network()
    traced = reprune.trace(model, X)
    for settings in (
        {"sparsity": 0.5, "rule": "uniform"},
        {"flops": 0.4, "rule": "uniform", "layers": "all"},
        {"keep": {"0": 5}},
    ):
        assert reprune.make_plan(model, traced, **settings) == reprune.make_plan(model, X, **settings)


def test_a_trace_runs_the_model_no_more_but_to_certify():
    model = network(Counting(asks=False))
    traced = reprune.trace(model, X)
    assert MODES == [None]
    reprune.make_plan(model, traced, sparsity=0.5, rule="uniform")
    assert MODES == [None, None]


@pytest.mark.parametrize("asks", [False, True])
def test_training_mode_is_traced_where_it_is_asked_for(asks):
    reprune.trace(network(Counting(asks)), X)
    assert ([False, True] if asks else [None]) == MODES


def test_layers_that_overwrite_train_are_traced_in_both_modes():
    class Merging(Counting):
        def train(self, mode=True):
            return super().train(mode)

    reprune.trace(network(Merging(asks=False)), X)
    assert MODES == [None, None]


def test_the_attribute_training_is_as_it_was():
    assert "training" not in vars(nn.Module)
    inside = []

    class Looks(nn.Module):
        def forward(self, x):
            inside.append((self.training, "training" in vars(nn.Module)))
            return x

    reprune.trace(network(Looks()), X)
    assert inside == [(False, True), (True, False)]
    assert "training" not in vars(nn.Module)
    assert vars(nn.ReLU())["training"] is True


def test_a_pruner_takes_a_trace_and_prunes_as_with_inputs():
    plans = []
    for traced in (False, True):
        model = network(middle := Counting(asks=False))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        given = reprune.trace(model, X) if traced else X
        MODES.clear()
        settings = {"sparsity": 0.5, "rule": "uniform", "interval": 1, "until": 1, "regrow": 0}
        pruner = reprune.Pruner(model, optimizer, given, **settings)
        assert len(MODES) == (1 if traced else 2)  # the certificate alone, or a trace before it
        pruner.step()
        plans.append(pruner.finalize())
        assert model[2] is middle
    assert plans[0] == plans[1]
    assert len(plans[0].keep["0"]) == 8
    for other, expected in ((network(), "the trace of another"), (model, "the model has changed since it")):
        optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
        with pytest.raises(ValueError, match=rf"example_inputs: .*{expected}"):
            reprune.Pruner(other, optimizer, given, sparsity=0.5)


def test_new_values_are_those_that_count():
    model = network()
    traced = reprune.trace(model, X)
    with torch.no_grad():
        model[0].weight.mul_(torch.linspace(2, 1, 16).view(-1, 1, 1, 1)).add_(1)
    settings = {"sparsity": 0.5, "rule": "uniform"}
    assert reprune.make_plan(model, traced, **settings) == reprune.make_plan(model, X, **settings)


def pruned(model):
    reprune.prune(model, X, sparsity=0.5, rule="uniform")
    reprune.apply(reprune.make_plan(model, X, sparsity=0.5, rule="uniform"), model)


def replaced(model):
    model[3].weight = nn.Parameter(model[3].weight.detach().clone())


def moved(model):
    model.double()


def elsewhere(model):
    model[3].weight.data = model[3].weight.data.clone()


def grown(model):
    model.register_parameter("more", nn.Parameter(torch.zeros(1)))


@pytest.mark.parametrize("change", [pruned, replaced, moved, elsewhere, grown])
def test_a_changed_model_is_refused(change):
    model = network()
    traced = reprune.trace(model, X)
    change(model)
    with pytest.raises(ValueError, match=r"example_inputs: the model has changed since .* reprune\.trace"):
        reprune.make_plan(model, traced, sparsity=0.5, rule="uniform")


def test_values_of_which_a_weight_was_computed_may_not_change():
    model = network()
    model[3] = parametrizations.weight_norm(model[3])
    traced = reprune.trace(model, X)
    reprune.make_plan(model, traced, sparsity=0.5, rule="uniform")
    with torch.no_grad():
        model[3].parametrizations.weight.original0.mul_(2)
    with pytest.raises(ValueError, match="the model has changed since it was traced"):
        reprune.make_plan(model, traced, sparsity=0.5, rule="uniform")


def test_another_model_is_refused():
    model = network()
    traced = reprune.trace(model, X)
    with pytest.raises(ValueError, match=r"example_inputs: .* got the trace of another model"):
        reprune.make_plan(copy.deepcopy(model), traced, sparsity=0.5, rule="uniform")


def test_wrong_arguments_are_named():
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn.Module; got"):
        reprune.trace("resnet50", X)
    with pytest.raises(ValueError, match="time_limit: expected a positive number"):
        reprune.trace(network(), X, time_limit=0)
    with pytest.raises(TypeError, match="example_inputs: expected a tensor"):
        reprune.trace(network(), 3)


def test_the_time_limit_holds_for_the_certificate_too():
    class Slow(nn.Module):
        def forward(self, x):
            if x.shape[1] < 16:
                for _ in range(10**6):
                    x = x + 1
            return x

    with pytest.raises(TimeoutError, match="time_limit"):
        reprune.make_plan(network(Slow()), X, sparsity=0.5, rule="uniform", time_limit=1)
