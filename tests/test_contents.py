"""What a file of a model can hold: every kind of memory comes back equal, or is refused by name."""

import copy

import pytest
import torch
from torch import nn

import reprune


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
    "a view of a parameter": (lambda: shared(lambda x: x), "model: x and y share memory"),
    "a slice of a parameter": (lambda: shared(lambda x: x[1:, 2]), "model: x and y share memory"),
    "in another type": (lambda: shared(lambda x: x.view(torch.int32)[:, 5:]), "model: x and y share memory"),
    "sparse": (lambda: {"x": torch.eye(3).to_sparse()}, "x: expected a dense tensor; got a sparse"),
    "csr": (lambda: {"x": torch.eye(3).to_sparse_csr()}, "x: expected a dense tensor; got a sparse"),
    "meta": (
        lambda: {"x": torch.empty(3, device="meta")},
        "model: x is on the device 'meta'",
    ),
    "quantised": (
        lambda: {"x": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)},
        "x: expected a dense tensor; got a sparse, quantized",
    ),
    "complex128": (
        lambda: {"x": torch.ones(2, dtype=torch.complex128)},
        r"x: tensors of .*complex128",
    ),
    "lazy": (lambda: {"x": nn.parameter.UninitializedParameter()}, "model: x is not initialised yet"),
    "nested": (
        lambda: {"x": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])},
        "x: expected a dense tensor",
    ),
}


@pytest.mark.filterwarnings("ignore:.*")  # of prototypes
@pytest.mark.parametrize("tensors,message", BAD.values(), ids=BAD)
def test_what_a_file_cannot_hold_is_refused_by_name(tensors, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        reprune.save(Holder(**tensors()), tmp_path / "file")
    assert not list(tmp_path.iterdir())
    if message.startswith("model: x and y"):  # in the model that is loaded into, it is the same
        whole = Holder(**{name: t.detach().clone() for name, t in tensors().items()})
        reprune.save(whole, tmp_path / "file")
        with pytest.raises(ValueError, match=message):
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
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    plan = reprune.make_plan(model, torch.zeros(1, 3, 8, 8), sparsity=0.5, rule="uniform")
    model[0].register_buffer("view", model[0].weight.detach()[:, 0])
    with pytest.raises(ValueError, match=r"model: 0\.weight and 0\.view share memory .* and surgery would"):
        reprune.apply(plan, model)
    assert model[0].weight.shape == (8, 3, 3, 3)
