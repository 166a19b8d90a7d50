"""`save` with a plan that was not applied writes the file of the network that `apply` would make."""

import copy

import pytest
import torch
from torch import nn

import reprune
from tests.helpers.networks import images, small_resnet


class Mixed(nn.Module):
    """Channels last, bfloat16, a tied layer, a norm without tensors, and a buffer that is in no file."""

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.InstanceNorm2d(8)
        self.b = nn.Conv2d(8, 8, 1)
        self.c = nn.Conv2d(8, 8, 1)
        self.c.weight = self.b.weight
        self.register_buffer("scale", torch.ones(8, 1, 1), persistent=False)
        self.head = nn.Conv2d(8, 5, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x):
        return self.head(self.c(self.b(self.norm(self.a(x)) * self.scale).relu()).relu())


NETWORKS = {
    "resnet": lambda: small_resnet(),
    "mixed": lambda: Mixed().eval(),
    "bfloat16": lambda: Mixed().eval().bfloat16(),
    "compiled": lambda: torch.compile(small_resnet(), backend="eager"),
}


@pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)
def test_the_bytes_of_the_applied_plan(build, tmp_path):
    torch.manual_seed(0)
    model = build()
    x = images().to(next(model.parameters()).dtype)
    plan = reprune.make_plan(model, x, sparsity=0.5, rule="uniform", scope="all")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reprune.save(model, tmp_path / "unapplied", plan=plan)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    small = copy.deepcopy(getattr(model, "_orig_mod", model))
    reprune.apply(plan, small)
    reprune.save(small, tmp_path / "applied")
    assert (tmp_path / "unapplied").read_bytes() == (tmp_path / "applied").read_bytes()
    loaded = reprune.load(tmp_path / "unapplied", getattr(build(), "_orig_mod", build())).eval()
    assert torch.equal(loaded(x), small(x))


def test_a_second_plan(tmp_path):
    first, _ = reprune.prune(small_resnet(), images(), sparsity=0.3, rule="uniform")
    plan = reprune.make_plan(first, images(), sparsity=0.3, rule="uniform")
    reprune.save(first, tmp_path / "unapplied", plan=plan)
    reprune.apply(plan, first)
    reprune.save(first, tmp_path / "applied")
    assert (tmp_path / "unapplied").read_bytes() == (tmp_path / "applied").read_bytes()


def test_a_plan_of_another_model_writes_nothing(tmp_path):
    plan = reprune.make_plan(small_resnet(), images(), sparsity=0.3, rule="uniform")
    with pytest.raises(ValueError, match="plan"):
        reprune.save(Mixed(), tmp_path / "file", plan=plan)
    with pytest.raises(TypeError, match="plan: expected a PruningPlan"):
        reprune.save(small_resnet(), tmp_path / "file", plan=plan.to_json())
    assert not list(tmp_path.iterdir())


def test_a_network_without_values_gets_them(tmp_path):
    """So the full network takes no memory where only the small one is wanted."""
    small, _ = reprune.prune(small_resnet(), images(), sparsity=0.5, rule="uniform")
    reprune.save(small, tmp_path / "small")
    with torch.device("meta"):
        empty = small_resnet()
    loaded = reprune.load(tmp_path / "small", empty).eval()
    assert loaded is empty
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cpu"}
    assert torch.equal(loaded(images()), small.eval()(images()))


def test_a_buffer_that_is_in_no_file(tmp_path):
    model = Mixed()
    reprune.save(model, tmp_path / "mixed")
    with torch.device("meta"):
        empty = Mixed()
    with pytest.raises(ValueError, match="scale of the model is on the device 'meta'"):
        reprune.load(tmp_path / "mixed", empty)
    assert all(parameter.is_meta for parameter in empty.parameters())
    empty.scale = model.scale.clone()
    assert torch.equal(reprune.load(tmp_path / "mixed", empty).a.weight, model.a.weight)
