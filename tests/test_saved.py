"""What is saved can be loaded, and is what was meant: in wrappers, as a part or a whole, and pickled."""

import copy
import io
import pickle

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import reprune

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.other = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.InstanceNorm2d(8)
        self.b = nn.Conv2d(8, 6, 3)

    def forward(self, x):
        return self.b(self.other(self.norm(self.a(x))).relu())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = Backbone(), nn.Sequential(nn.ReLU(), nn.Conv2d(6, 4, 1), nn.Flatten())

    def forward(self, x):
        return self.head(self.backbone(x))


def build(kind=Net, seed=0):
    torch.manual_seed(seed)
    return kind().eval()


def small(model=None):
    return reprune.prune(build() if model is None else model, X, sparsity=0.5, rule="uniform")[0]


def compiled(model):
    return torch.compile(model, backend="eager")


def part_compiled(model):
    model.backbone = compiled(model.backbone)
    return model


def layer_compiled(model):
    model.backbone.a = compiled(model.backbone.a)
    return model


def part_parallel(model):
    model.head = nn.DataParallel(model.head)
    return model


def in_place(model):
    model.compile(backend="eager")
    model.backbone.compile(backend="eager")
    return model


class Mine(nn.DataParallel):
    """A wrapper derived from another."""


class ModelEmaV3(nn.Module):
    """As timm's."""

    def __init__(self, model):
        super().__init__()
        self.module = copy.deepcopy(model)

    def forward(self, x):
        return self.module(x)


WRAPPED = {
    "compile": compiled,
    "in place": in_place,
    "a layer and a part": lambda model: part_parallel(layer_compiled(model)),
    "DataParallel": Mine,
    "average of compiled": lambda model: AveragedModel(compiled(part_compiled(model))),
    "compiled average": lambda model: compiled(AveragedModel(nn.DataParallel(model))),
    "timm's average": ModelEmaV3,
}


@pytest.fixture
def one_process(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_every_entry_takes_the_network_inside_wrappers(wrap, tmp_path):
    path = tmp_path / "small.safetensors"
    plan = reprune.make_plan(build(), X, sparsity=0.5, rule="uniform")
    network, its = reprune.prune(wrap(build()), X, sparsity=0.5, rule="uniform")
    assert its.to_json() == plan.to_json()
    assert type(network) is Net
    wrapped = wrap(build())
    reprune.apply(plan, wrapped)
    for model in (wrapped, wrap(copy.deepcopy(network))):
        reprune.save(model, path)
        assert reprune.read_plan(path).to_json() == plan.to_json()
        assert torch.equal(reprune.load(path, build(seed=1))(X), small()(X))
        into = wrap(build(seed=1))
        assert reprune.load(path, into) is into
        assert torch.equal(into.eval()(X), small()(X))


def test_averaged_models_are_saved_with_averaged_values(tmp_path):
    model = small()
    average = AveragedModel(compiled(model), avg_fn=lambda mean, new, count: (mean + new) / 2)
    for value in (1.0, 3.0):
        with torch.no_grad():
            model.head[1].bias.fill_(value)
        average.update_parameters(compiled(model))
    reprune.save(average, tmp_path / "average.safetensors")
    assert reprune.load(tmp_path / "average.safetensors", build()).head[1].bias.tolist() == [2.0] * 4


def test_distributed_data_parallel(one_process, tmp_path):
    path = tmp_path / "small.safetensors"
    wrapped = DistributedDataParallel(build())
    plan = reprune.make_plan(wrapped, X, sparsity=0.5, rule="uniform")
    network, _ = reprune.prune(wrapped, X, sparsity=0.5, rule="uniform")
    assert torch.equal(network(X), small()(X))
    reprune.save(compiled(DistributedDataParallel(network)), path)
    assert torch.equal(reprune.load(path, build(seed=1))(X), network(X))
    before = copy.deepcopy(wrapped.module.state_dict())
    for refused in (lambda: reprune.apply(plan, wrapped), lambda: reprune.load(path, compiled(wrapped))):
        with pytest.raises(ValueError, match=r"model: .*DistributedDataParallel.*wrap it again"):
            refused()
    assert all(torch.equal(t, before[name]) for name, t in wrapped.module.state_dict().items())


@pytest.mark.parametrize("mode", ["shrink", "mask"])
def test_pruned_in_training_with_compiled_parts(mode, tmp_path):
    def train(wrap, epochs, resume=None):
        torch.manual_seed(0)
        model = wrap(Net())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        pruner = reprune.Pruner(
            model, optimizer, X, sparsity=0.5, rule="uniform", interval=1, until=3, mode=mode
        )
        if resume is not None:
            reprune.load_training(resume, model, optimizer, pruner)
        while pruner.epoch < epochs:
            optimizer.zero_grad()
            model(X).square().mean().backward()
            optimizer.step()
            pruner.step()
        return model, optimizer, pruner

    plain, _, its = train(lambda model: model, 4)
    wrapped, optimizer, pruner = train(lambda model: compiled(part_parallel(part_compiled(model))), 2)
    reprune.save_training(tmp_path / "training", wrapped, optimizer, pruner)
    for wrap in (layer_compiled, lambda model: model):
        model, _, pruner = train(wrap, 4, tmp_path / "training")
        assert pruner.finalize().to_json() == its.finalize().to_json()
        reprune.save(model, tmp_path / "small")
        assert torch.equal(reprune.load(tmp_path / "small", build(seed=1))(X), plain.eval()(X))


def pruned_part(model):
    plan = reprune.make_plan(model, X, sparsity=0.5, rule="uniform")
    reprune.apply(plan, model)
    return model


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Sequential(Backbone(), nn.ReLU()), Backbone()

    def forward(self, x):
        return self.left(x) + self.right(x)


def backbone_alone(net):
    pruned_part(net.backbone)
    return net


def moved(pair):
    pair.left[0], pair.right = small(build(Backbone)), pruned_part(build(Backbone, 3))
    return pair


def twice_the_same(pair):
    pair.right = small(build(Backbone))
    pair.left[0] = copy.deepcopy(pair.right)
    return pair


def one_and_then_all(net):
    return small(backbone_alone(net))


def all_and_then_one(net):
    net = small(net)
    reprune.apply(reprune.make_plan(net.backbone, X, keep={"a": 2}), net.backbone)
    return net


PARTS = {
    "a part was pruned, the whole is saved": (backbone_alone, Net),
    "the whole was pruned, a part is saved": (lambda net: small(net).backbone, Backbone),
    "a part of a part": (lambda net: small(net).backbone.a, lambda: nn.Conv2d(3, 8, 3)),
    "two parts, pruned elsewhere": (moved, Pair),
    "two copies of one": (twice_the_same, Pair),
    "a part, then the whole": (one_and_then_all, Net),
    "the whole, then a part": (all_and_then_one, Net),
    "into a larger network": (
        lambda net: nn.Sequential(nn.Identity(), small(net), nn.Linear(64, 2)),
        lambda: nn.Sequential(nn.Identity(), Net(), nn.Linear(64, 2)),
    ),
    "its layers in a row": (
        lambda net: nn.Sequential(*small(net).backbone.children()),
        lambda: nn.Sequential(*Backbone().children()),
    ),
}


@pytest.mark.parametrize("how", PARTS.values(), ids=PARTS)
def test_parts_and_wholes(how, tmp_path):
    make, kind = how
    model = make(build(Pair if kind is Pair else Net)).eval()
    through = pickle.loads(pickle.dumps(copy.deepcopy(model).to(torch.float64).float()))
    for saved in (model, through, AveragedModel(model)):
        reprune.save(saved, tmp_path / "file")
        loaded = reprune.load(tmp_path / "file", build(kind, seed=1))
        assert torch.equal(loaded(X), model(X))
        assert [t.shape for t in loaded.state_dict().values()] == [
            t.shape for t in model.state_dict().values()
        ]
        plan = reprune.read_plan(tmp_path / "file")
        assert plan.params[1] == sum(p.numel() for p in model.parameters())
        assert plan.params[0] == sum(p.numel() for p in build(kind).parameters())
        assert "left" in str(plan)
        reprune.save(loaded, tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == (tmp_path / "file").read_bytes()


def test_a_layer_that_was_put_in_place_of_a_cut_one(tmp_path):
    model, fresh = small(), build()
    for net in (model, fresh):
        net.head[1] = nn.Conv2d(3, 2, 1)
    reprune.save(model, tmp_path / "file")
    assert torch.equal(reprune.load(tmp_path / "file", fresh)(X), model(X))

    model = small()
    model.backbone.b.weight = nn.Parameter(torch.zeros(6, 5, 3, 3))
    for refused in (lambda: reprune.save(model, tmp_path / "no"), lambda: reprune.save(model.backbone, "no")):
        with pytest.raises(ValueError, match=r"model: .*b\.weight was cut to .*now has shape \(6, 5, 3, 3\)"):
            refused()
    assert not (tmp_path / "no").exists()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.d = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
        self.b, self.c = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.b.weight = self.c.weight

    def forward(self, x):
        return self.d(self.c(self.b(self.a(x)).relu()).relu())


def test_a_part_with_the_second_name_of_a_tied_tensor(tmp_path):
    model = small(build(Tied))
    assert model.b.weight is model.c.weight
    reprune.save(model.c, tmp_path / "c")
    assert torch.equal(reprune.load(tmp_path / "c", nn.Conv2d(8, 8, 1)).weight, model.c.weight)
    reprune.save(model, tmp_path / "all")
    loaded = reprune.load(tmp_path / "all", build(Tied, seed=1))
    assert torch.equal(loaded(X), model(X))
    assert loaded.b.weight is loaded.c.weight


class WithoutReprune(pickle.Unpickler):
    def find_class(self, package, name):
        assert package.partition(".")[0] not in ("reprune", "numpy")
        return super().find_class(package, name)


def test_pickles_of_pruned_networks_need_no_reprune(tmp_path):
    def chain():
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Sequential(nn.Conv2d(8, 4, 3))
        )

    models = {"pruned": small(chain())}
    for mode in ("shrink", "mask"):
        model = chain()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        pruner = reprune.Pruner(
            model, optimizer, X, sparsity=0.5, rule="uniform", interval=1, until=2, mode=mode
        )
        for _ in range(2):
            model(X).sum().backward()
            optimizer.step()
            pruner.step()
            models[f"{mode} {pruner.epoch}"] = copy.deepcopy(model)
        pruner.finalize()
        models[mode] = model
    reprune.save(models["pruned"], tmp_path / "file")
    models["loaded"] = reprune.load(tmp_path / "file", chain())
    models["average"] = AveragedModel(models["pruned"])
    models["part"] = models["pruned"][3]
    for name, model in models.items():
        again = WithoutReprune(io.BytesIO(pickle.dumps(model))).load()
        assert str(again) == str(model), name
        torch.save(model.state_dict(), tmp_path / "state.pt")
        assert torch.load(tmp_path / "state.pt", weights_only=True).keys() == model.state_dict().keys()
