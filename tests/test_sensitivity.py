"""What an error of a layer is worth: how much a constant that it adds changes the network's outputs."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import reprune
from reprune.compensation.images import collected
from reprune.compensation.sequence import observed
from reprune.reconstruction.images import Reconstruction
from reprune.reconstruction.sensitivity import sensitivities
from tests.helpers.networks import Residual, images

STEP = 1e-5


class Total(nn.Module):
    """One output for each image: for it random signs give the gradient itself."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        y = torch.tanh(self.body(x))  # so that images differ
        return y.flatten(1).sum(1)


class Often(nn.Module):
    """A layer that is called twice, on images in another order too, and changed in place."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x):
        x = F.silu(self.a(x), inplace=True)
        return self.b(F.silu(self.a(x), inplace=True))


def by_adding(model, layer, x):
    """What adding a little to each output channel of `layer` changes, as a mean over channels and images."""
    dim = 1 if isinstance(layer, nn.modules.conv._ConvNd) else -1
    found = []
    for channel in range(layer.weight.shape[0]):
        made = []
        for step in (-STEP, STEP):

            def added(module, args, out, step=step, channel=channel):
                out = out.clone()
                out.select(dim, channel).add_(step)
                return out

            handle = layer.register_forward_hook(added)
            made.append(model(x))
            handle.remove()
        found.append(((made[1] - made[0]) / (2 * STEP)).square().mean())
    return float(torch.stack(found).mean())


def found(model, x, memory=1e9):
    return sensitivities(
        model, collected(x, model), (x.device, x.dtype), observed(model, ((x[:4],), {})).events, memory
    )


CASES = {
    "in place": (Often, ("body.a", "body.b")),
    "residual": (
        lambda: nn.Sequential(nn.Conv2d(3, 7, 3), Residual(7, 5), nn.Conv2d(7, 4, 1)),
        ("body.0", "body.1.conv1", "body.2"),
    ),
    "flattened": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(True), nn.Flatten(), nn.Linear(72, 6)),
        ("body.0", "body.3"),
    ),
    "in groups": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 1), nn.GELU(), nn.Conv2d(8, 6, 3, groups=2)),
        ("body.0", "body.2"),
    ),
}


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_it_is_what_a_constant_changes(name):
    build, layers = CASES[name]
    torch.manual_seed(0)
    model, x = Total(build()).double().eval(), images(11).double()
    values = found(model, x)
    for layer in layers:
        expected = by_adding(model, model.get_submodule(layer), x)
        assert values[f"{layer}.weight"] == pytest.approx(expected, rel=1e-5)
    assert found(model, x, memory=1) == pytest.approx(values)  # two images at a time, and three in the end


def test_layers_of_a_block_count_as_much_as_the_outputs_change():
    """Three equal branches, of which the outputs take one whole, one a tenth of, and one not at all."""

    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(
                nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)) for _ in range(3)
            )

        def forward(self, x):
            a, b, c = (part(x) for part in self.parts)
            return (a + 0.1 * b + 0 * c).flatten(1).sum(1)  # of one output random signs are exact

    torch.manual_seed(0)
    model = Branches().eval()
    for part in model.parts[1:]:
        part.load_state_dict(model.parts[0].state_dict())
    x = images(24)
    graph = reprune.trace(model, x[:2]).graph()
    measured = Reconstruction(graph, collected(x, model))
    whole, tenth, none = (measured.picks(group).gains for group in graph.groups)
    np.testing.assert_allclose(tenth, whole / 100, rtol=1e-4, atol=1e-9)
    assert none.tolist() == [0] * 8
    rows = model.parts[0](x).detach().transpose(0, 1).flatten(1)
    assert whole.sum() == pytest.approx(float(rows.var(1, correction=0).sum()) * 64**2, rel=1e-4)
    assert measured.notes(graph) == []


class Rounding(nn.Sequential):
    """Whose outputs have no derivative."""

    def forward(self, x):
        return super().forward(x).detach().round()


class Failing(nn.Sequential):
    """It runs without gradients only."""

    def forward(self, x):
        x = self[0](x)
        if x.requires_grad:
            raise RuntimeError("no gradients\nhere")
        return self[1](x)


@pytest.mark.parametrize("kind, why", [(Rounding, ""), (Failing, "no gradients")])
def test_without_gradients_layers_count_by_what_they_compute(kind, why):
    torch.manual_seed(0)
    model = kind(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1))
    plan = reprune.make_plan(model, images(), sparsity=0.5, rule="error", calibrate=images(24))
    assert len(plan.keep["0"]) == 4
    (note,) = plan.notes
    assert note.startswith("what an error of a layer changes at the outputs of the network is not known")
    assert f"({why}" in note
    assert "here" not in note
    graph = reprune.trace(model, images()).graph()
    assert Reconstruction(graph, collected(images(24), model)).picks(
        graph.groups[0]
    ).gains.sum() == pytest.approx(1)


def test_frozen_networks_and_blocks_without_gradients_are_no_obstacle():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)), images(24)

    def plan():
        return reprune.make_plan(model, x[:2], sparsity=0.5, rule="error", calibrate=x)

    usual = plan()
    with torch.inference_mode():
        assert plan() == usual
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert plan() == usual
    assert usual.notes == ()
    assert not any(p.requires_grad for p in model.parameters())


def test_each_tap_of_a_flattened_channel_counts_once():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8 * 64, 1)).eval(), images(24)
    weights = torch.randn(8)
    with torch.no_grad():
        model[2].weight.copy_(weights.repeat_interleave(64)[None])  # the same at all 64 positions
        y = model[0](x).flatten(2)  # [24, 8, 64]
    (group,) = reprune.trace(model, x[:2]).graph().groups
    gains = Reconstruction(reprune.trace(model, x[:2]).graph(), collected(x, model)).picks(group).gains
    of_positions = torch.einsum("c,ncp->np", weights, y)
    assert gains.sum() == pytest.approx(float(of_positions.var(0, correction=0).sum()), rel=1e-4)
