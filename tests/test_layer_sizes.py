"""The sizes that layers remember: of computed weights, and of norms that have no tensors to tell by."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

import reprune
from reprune.graph import build_graph
from tests.helpers.loops import one_step

INPUT = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net(layer, norm=nn.BatchNorm2d):
    """`layer` gets 16 channels and gives as many."""
    torch.manual_seed(0)
    first, last = (
        (nn.Conv2d(3, 16, 3), norm(16), nn.ReLU()),
        (nn.Conv2d(16, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1)),
    )
    return nn.Sequential(*first, layer, norm(16), nn.ReLU(), *last)


class Equalized:
    """A hook of one's own."""

    def __call__(self, module, inputs):
        module.weight = module.weight_raw * 0.5

    @classmethod
    def add(cls, layer):
        layer.weight_raw = nn.Parameter(layer.weight.detach())
        del layer.weight
        cls()(layer, ())
        layer.register_forward_pre_hook(cls())
        return layer


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Scaled(nn.Module):
    """Its own tensor comes first in the product."""

    def __init__(self, weight):
        super().__init__()
        self.scale = nn.Parameter(torch.rand(len(weight), *[1] * (weight.dim() - 1)) + 0.5)

    def forward(self, weight):
        return self.scale * weight


def parametrized(*kinds):
    def wrap(layer):
        for kind in kinds:
            inside = kind(layer.weight) if kind is Scaled else kind()
            parametrize.register_parametrization(layer, "weight", inside)
        return layer

    return wrap


def pruned(how, name="weight"):
    def wrap(layer):
        for _ in range(2):  # the second makes a container of both
            how(layer, name, 0.2)
        return layer

    return wrap


COMPUTED = {
    "old weight norm": weight_norm,
    "old spectral norm": spectral_norm,
    "pruned": pruned(prune.l1_unstructured),
    "pruned bias": pruned(prune.random_unstructured, "bias"),
    "hook of one's own": Equalized.add,
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "scaled": parametrized(Scaled),
    "stacked": parametrized(Doubled, Scaled),
}
LAYERS = {
    "conv": lambda: nn.Conv2d(16, 16, 3),
    "depthwise": lambda: nn.Conv2d(16, 16, 3, groups=16),
    "transposed": lambda: nn.ConvTranspose2d(16, 16, 3),
}


def check_sizes(model):
    """Every layer says what its tensors are."""
    for module in model.modules():
        if isinstance(module, nn.modules.conv._ConvNd):
            first, second = module.weight.shape[:2]
            shape = (module.out_channels, module.in_channels // module.groups)
            if module.transposed:
                shape = (module.in_channels, module.out_channels // module.groups)
            assert shape == (first, second)
            assert module.bias is None or len(module.bias) == module.out_channels
        elif isinstance(module, nn.BatchNorm2d) and module.affine:
            assert module.num_features == len(module.weight)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", COMPUTED)
def test_computed_weights(name, layer, tmp_path):
    """Right at once and after a pass, in memory and from a file; or whole, with a reason."""
    model = net(COMPUTED[name](LAYERS[layer]()))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    small, plan = reprune.prune(model, INPUT, sparsity=0.5, rule="uniform")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    if "pruned" in name or name in ("scaled", "stacked"):
        assert {key: len(kept) for key, kept in plan.keep.items()} == {"0": 8, "3": 8, "6": 4}
    else:
        assert all(plan.skipped[key] for key in ("0", "3") if key not in plan.keep)
    check_sizes(small)
    small.eval()(INPUT)
    check_sizes(small)
    reprune.save(small, tmp_path / "small.safetensors")
    again = reprune.load(tmp_path / "small.safetensors", net(COMPUTED[name](LAYERS[layer]()))).eval()
    check_sizes(again)
    with torch.no_grad():
        assert torch.equal(again(INPUT), small(INPUT))


def test_training_mode_changes_no_spectral_norm():
    """Reading a parametrized weight in training mode takes a step of the power iteration."""
    model = net(parametrizations.spectral_norm(nn.Conv2d(16, 16, 3))).train()
    before = model[3].parametrizations.weight[0]._u.clone()
    build_graph(model, INPUT)
    assert torch.equal(model[3].parametrizations.weight[0]._u, before)


BARE = {
    "batch norm": lambda n: nn.BatchNorm2d(n, affine=False, track_running_stats=False),
    "instance norm": nn.InstanceNorm2d,
    "group norm": lambda n: nn.GroupNorm(4, n, affine=False),
    "batch norm that counts": lambda n: nn.BatchNorm2d(n, affine=False),
    "instance norm that learns": lambda n: nn.InstanceNorm2d(n, affine=True),
    "group norm that learns": lambda n: nn.GroupNorm(4, n),
}


def width_of(norm):
    return norm.num_channels if isinstance(norm, nn.GroupNorm) else norm.num_features


def check_norms(model):
    """As wide as what they are given, groups as wide as before; an InstanceNorm of another width warns."""
    for conv, norm in ((model[0], model[1]), (model[3], model[4])):
        assert width_of(norm) == conv.out_channels
        assert not isinstance(norm, nn.GroupNorm) or norm.num_channels // norm.num_groups == 4
    with torch.no_grad():
        model(INPUT)


@pytest.mark.parametrize("name", BARE)
def test_norms_without_tensors(name, tmp_path):
    def build():
        return net(nn.Conv2d(16, 16, 3), BARE[name]).eval()

    small, plan = reprune.prune(build(), INPUT, sparsity=0.5, rule="uniform")
    assert {key: len(kept) for key, kept in plan.keep.items()} == {"0": 8, "3": 8, "6": 4}
    check_norms(small)
    reprune.save(small, tmp_path / "small.safetensors")
    check_norms(reprune.load(tmp_path / "small.safetensors", build()))
    model = build()
    reprune.apply(reprune.PruningPlan.from_json(plan.to_json()), model)
    check_norms(model)
    twice, second = reprune.prune(model, INPUT, keep={"3": 4}, rule="uniform")
    assert len(second.keep["3"]) == 4
    check_norms(twice)
    reprune.save(twice, tmp_path / "twice.safetensors")
    check_norms(reprune.load(tmp_path / "twice.safetensors", build()))


def test_the_norm_of_one_image_without_a_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8), nn.Conv2d(8, 4, 1))
    small, _ = reprune.prune(model, INPUT[0], sparsity=0.5, rule="uniform")
    assert small[1].num_features == 4
    small(INPUT[0])


def test_norms_without_tensors_while_training():
    """They follow every event, and channels that come back."""
    model = net(nn.Conv2d(16, 16, 3), nn.InstanceNorm2d)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    whole = nn.Sequential(model, head)
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.01)
    pruner = reprune.Pruner(
        whole, optimizer, INPUT, sparsity=0.6, interval=1, until=2, regrow=0.5, rule="uniform"
    )
    for _ in range(2):
        one_step(whole, optimizer)
        assert pruner.step()
        check_norms(model)
    pruner.finalize()
    check_norms(model)
    assert model[1].num_features == 6


def test_a_plan_for_a_model_without_that_norm():
    """Nothing is changed."""
    plan = reprune.make_plan(
        net(nn.Conv2d(16, 16, 3), nn.InstanceNorm2d), INPUT, sparsity=0.5, rule="uniform"
    )
    other = nn.Sequential()
    for key, module in net(nn.Conv2d(16, 16, 3), nn.InstanceNorm2d).named_children():
        other.add_module("renamed" if key == "1" else key, module)
    with pytest.raises(ValueError, match="plan: made for a model with a norm named 1; this model has none"):
        reprune.apply(plan, other)
    assert other[0].out_channels == 16
    other(INPUT)
