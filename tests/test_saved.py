"""What is saved can be loaded, and is what was meant: in wrappers, as a part or a whole, of every kind of
memory, and without reprune."""

import copy
import pickle
import subprocess
import sys

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
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3)

    def forward(self, x):
        return self.b(self.norm(self.a(x)).relu())


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


def timm_ema(model):
    return pytest.importorskip("timm").utils.ModelEmaV2(model)


WRAPPED = {
    "compile": compiled,
    "in place": in_place,
    "a part": part_compiled,
    "a layer and a part": lambda model: part_parallel(layer_compiled(model)),
    "DataParallel": Mine,
    "average": AveragedModel,
    "average of compiled": lambda model: AveragedModel(compiled(part_compiled(model))),
    "compiled average": lambda model: compiled(AveragedModel(nn.DataParallel(model))),
    "timm's average": timm_ema,
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
    for model in (wrapped, network, wrap(copy.deepcopy(network))):
        reprune.save(model, path)
        assert reprune.read_plan(path).to_json() == plan.to_json()
        assert torch.equal(reprune.load(path, build(seed=1))(X), small()(X))
        into = wrap(build(seed=1))
        assert reprune.load(path, into) is into
        assert torch.equal(into.eval()(X), small()(X))


def test_of_an_average_the_averaged_values_are_saved(tmp_path):
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


class Holder(nn.Module):
    def __init__(self, **tensors):
        super().__init__()
        for name, value in tensors.items():
            if isinstance(value, nn.Parameter):
                self.register_parameter(name, value)
            else:
                self.register_buffer(name, value)


FLAT = torch.arange(24.0)
GOOD = {
    "0-dim": torch.tensor(3.5),
    "empty": torch.empty(0, 4),
    "bool": torch.tensor([True, False]),
    "complex": torch.tensor([1 + 2j]),
    "conjugate": torch.tensor([[1 + 2j, 3 - 1j]]).conj(),
    "negative": torch.tensor([1 + 2j, 3 - 1j]).conj().imag,
    "float8": torch.tensor([1.0, 2.0]).to(torch.float8_e4m3fn),
    "bfloat16": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
    "int64": torch.tensor([2**60 + 1]),
    "expanded": torch.tensor([1.0, 2.0])[:, None].expand(2, 3),
    "transposed": FLAT.reshape(4, 6).T,
    "every other": FLAT[::2],
    "channels last": torch.arange(48.0).reshape(1, 3, 4, 4).contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("value", GOOD.values(), ids=GOOD)
def test_every_kind_of_tensor_comes_back_equal(value, tmp_path):
    reprune.save(Holder(x=value, y=torch.ones(2)), tmp_path / "file")
    fresh = Holder(x=value.clone().zero_(), y=torch.zeros(2))
    loaded = reprune.load(tmp_path / "file", fresh)
    assert loaded.x.dtype == value.dtype
    assert loaded.x.is_contiguous(memory_format=torch.channels_last) or value.dim() != 4
    assert torch.equal(loaded.x.resolve_conj(), value.resolve_conj().resolve_neg())
    assert loaded.y.tolist() == [1, 1]


def test_parts_of_one_storage_that_do_not_overlap(tmp_path):
    table = torch.arange(24.0).reshape(4, 6)
    model = Holder(left=table[:, :3], right=table[:, 3:], row=nn.Parameter(torch.arange(9.0)[3:6]))
    reprune.save(model, tmp_path / "file")
    loaded = reprune.load(tmp_path / "file", copy.deepcopy(model))
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in loaded.state_dict().items())


def test_tied_tensors_come_back_tied(tmp_path):
    def tied(value):
        x = nn.Parameter(torch.tensor(value))
        model = Holder(x=x, y=x)
        model.part = Holder(z=x)
        return model

    reprune.save(tied([1.0, 2.0]), tmp_path / "file")
    loaded = reprune.load(tmp_path / "file", tied([0.0, 0.0]))
    assert loaded.x is loaded.y is loaded.part.z
    assert loaded.x.tolist() == [1, 2]


def shared(view):
    x = nn.Parameter(torch.ones(4, 6))
    return {"x": x, "y": view(x.detach())}


BAD = {
    "a view of a parameter": (lambda: shared(lambda x: x), "x and y share memory"),
    "a slice of a parameter": (lambda: shared(lambda x: x[1:, 2]), "x and y share memory"),
    "in another type": (lambda: shared(lambda x: x.view(torch.int32)[:, 5:]), "x and y share memory"),
    "sparse": (lambda: {"x": torch.eye(3).to_sparse()}, r"x is torch\.sparse_coo"),
    "csr": (lambda: {"x": torch.eye(3).to_sparse_csr()}, r"x is torch\.sparse_csr"),
    "meta": (lambda: {"x": torch.empty(3, device="meta")}, "x is on the device 'meta' and has no values"),
    "quantised": (
        lambda: {"x": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)},
        r"x is torch\.qint8",
    ),
    "complex128": (lambda: {"x": torch.ones(2, dtype=torch.complex128)}, r"x has the type torch\.complex128"),
    "lazy": (lambda: {"x": nn.parameter.UninitializedParameter()}, "x is not initialised yet"),
    "nested": (lambda: {"x": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])}, "x is nested"),
}


@pytest.mark.filterwarnings("ignore:.*")  # of prototypes
@pytest.mark.parametrize("tensors,message", BAD.values(), ids=BAD)
def test_what_a_file_cannot_hold_is_refused_by_name(tensors, message, tmp_path):
    with pytest.raises(ValueError, match=f"model: {message}"):
        reprune.save(Holder(**tensors()), tmp_path / "file")
    assert not list(tmp_path.iterdir())
    if message.startswith("x and y"):  # in the model that is loaded into, it is the same
        whole = Holder(**{name: t.detach().clone() for name, t in tensors().items()})
        reprune.save(whole, tmp_path / "file")
        with pytest.raises(ValueError, match=f"model: {message}"):
            reprune.load(tmp_path / "file", Holder(**tensors()))


def test_other_kinds_of_state_are_refused(tmp_path):
    class Extra(nn.Conv2d):
        def get_extra_state(self):
            return torch.ones(2)

        def set_extra_state(self, state):
            pass

    with pytest.raises(ValueError, match=r"model: its state '0\._extra_state' is neither a parameter nor"):
        reprune.save(nn.Sequential(Extra(3, 4, 1)), tmp_path / "file")
    torchao = pytest.importorskip("torchao.quantization")
    model = nn.Sequential(nn.Linear(32, 32))
    torchao.quantize_(model, torchao.Int8WeightOnlyConfig())
    with pytest.raises(ValueError, match=r"model: 0\.weight is a \w+Tensor; only plain tensors"):
        reprune.save(model, tmp_path / "file")


def test_surgery_does_not_part_what_shares_memory():
    model = build()
    model.backbone.register_buffer("view", model.backbone.a.weight.detach()[:, 0])
    model.backbone.view.add_(0)
    plan = reprune.make_plan(build(), X, sparsity=0.5, rule="uniform")
    with pytest.raises(ValueError, match=r"backbone\.(a\.weight|view) and .* share memory .*surgery"):
        reprune.apply(plan, model)
    assert model.backbone.a.weight.shape == (8, 3, 3, 3)


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
    torch.save(models, tmp_path / "models.pt")
    for model in models.values():
        torch.save(model.state_dict(), tmp_path / "state.pt")
        assert torch.load(tmp_path / "state.pt", weights_only=True).keys() == model.state_dict().keys()
    code = (
        "import sys; sys.modules['reprune'] = sys.modules['numpy'] = None\n"
        f"import torch; print(*torch.load({str(tmp_path / 'models.pt')!r}, weights_only=False))"
    )
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == " ".join(models), run.stderr
