"""Pruned networks out in the world: other processes, torch.export, ONNX, torch.compile, half precision, int8.

The code is that of docs/deployment.md, run section by section; what is missing is skipped with the reason.
"""

import copy
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import reprune
from tests.helpers.forked import one_process
from tests.helpers.networks import images, small_resnet
from tests.helpers.versions import TORCH

PAGE = (Path(__file__).parents[1] / "docs" / "deployment.md").read_text()
NEEDS = 'needs pip install "reprune[deploy]"'
pytestmark = one_process


def follow(section, **names):
    """What the Python code of a section of the page makes of `names`."""
    code = re.search(rf"^## {section}\n.*?^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1]
    names = {
        "torch": torch,
        "copy": copy,
        "reprune": reprune,
        "batch": torch.export.Dim("batch", max=1024),
        **names,
    }
    exec(compile(code, f"deployment.md, {section}", "exec"), names)
    return names


@pytest.fixture(scope="module")
def small():
    """Pruned through residual streams and a depthwise convolution, to sizes that no one would choose."""
    network, plan = reprune.prune(small_resnet(), images(), sparsity=0.5, scope="all")
    assert not plan.skipped
    assert any(len(kept) % 4 for kept in plan.keep.values())
    return network


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch._dynamo.reset()


@pytest.fixture
def inductor():
    """Inductor's settings. It believes what the processor says of itself, instead of compiling a program for
    each instruction set, which takes as long as the networks here."""
    import torch._inductor.config as settings

    with settings.patch({"cpp.vec_isa_ok": True}):
        yield settings


class Wide(nn.Module):
    """Large enough for its time to be its convolutions'."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.blocks = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())
        self.head = nn.Conv2d(64, 8, 1)

    def forward(self, x):
        return self.head(self.blocks(torch.relu(self.stem(x))))


def test_targets_of_the_page():
    torch.manual_seed(0)
    model = Wide().eval()
    for gammas in (m.weight for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(gammas, 0.1, 1)
    plan = follow("Faster, not only smaller", model=model, images=images(4, 32))["plan"]
    assert plan.skipped["stem"] == "stem is in ignore"
    assert len(plan.keep["blocks.0"]) >= 8


def in_onnxruntime(file, x):
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def test_round_trip_through_another_process(small, tmp_path, run_forked):
    """Save; load with the network's code alone, export; run that in onnxruntime: the same answers."""
    pytest.importorskip("onnxruntime", reason=NEEDS)
    pytest.importorskip("onnxscript", reason=NEEDS)
    x = images(5)
    again = follow("Save and load", small=small, build=lambda: small_resnet(seed=1))["again"]
    assert torch.equal(again(x), small(x))
    save_file({"images": x}, "images.safetensors")
    threads = str(torch.get_num_threads())  # sums depend on how many share them
    run = run_forked("tests.programs.deployed", threads)
    assert run.returncode == 0, run.stderr
    answers = load_file("answers.safetensors")
    with torch.no_grad():
        expected = small(x)
    assert torch.equal(answers["eager"], expected)
    assert torch.equal(answers["export"], expected)
    if TORCH < (2, 7):
        pytest.skip("the ONNX exporter of torch 2.6 fails with today's onnxscript")
    program = torch.export.load("small.pt2")
    torch.onnx.export(program, dynamo=True, verbose=False).save("small.onnx")
    torch.testing.assert_close(in_onnxruntime("small.onnx", x), expected, rtol=1e-5, atol=1e-5)
    more = images(9, seed=1)  # any batch size
    torch.testing.assert_close(in_onnxruntime("small.onnx", more), small(more), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(program.module()(more), small(more), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(small, dtype):
    """Cast after pruning: as near to float as the full network; the file keeps the type."""
    x = images(8)
    errors = {}
    for name, network in (("small", small), ("full", small_resnet())):
        cast = copy.deepcopy(network).to(dtype)
        with torch.no_grad():
            expected, found = network(x), cast(x.to(dtype))
        assert found.dtype == dtype
        errors[name] = float((found.float() - expected).abs().max() / expected.abs().max())
    assert errors["small"] < max(4 * torch.finfo(dtype).eps, 2 * errors["full"])


def test_half_precision_in_a_file(small):
    half = follow("Half precision", small=small)["half"]
    loaded = reprune.load("half.safetensors", small_resnet(seed=1))
    assert {t.dtype for t in loaded.parameters()} == {torch.bfloat16}
    x = images(8).to(torch.bfloat16)
    assert torch.equal(loaded(x), half(x))
    assert {t.dtype for t in small.parameters()} == {torch.float32}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_is_pruned(dtype):
    model = small_resnet().to(dtype)
    x = images().to(dtype)
    small, plan = reprune.prune(model, x, flops=0.6)
    assert plan.flops[1] <= 0.6 * plan.flops[0]
    assert small(x).dtype == dtype
    in_float = reprune.make_plan(copy.deepcopy(model).float(), x.float(), flops=0.6)
    assert {n: k.tolist() for n, k in plan.keep.items()} == {n: k.tolist() for n, k in in_float.keep.items()}


def test_channels_last_stays():
    model = small_resnet().to(memory_format=torch.channels_last)
    x = images().to(memory_format=torch.channels_last)
    small, _ = reprune.prune(model, x, sparsity=0.5, scope="all")
    for name, parameter in small.named_parameters():
        assert parameter.is_contiguous(memory_format=torch.channels_last) or parameter.dim() != 4, name
    assert small.blocks(small.stem(x)).is_contiguous(memory_format=torch.channels_last)


class Tiny(nn.Module):
    """Compiles in seconds. One of its modules is called twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, padding=1)
        self.norm = nn.BatchNorm2d(24)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(24, 5, 3, padding=1)

    def forward(self, x):
        return self.relu(self.second(self.relu(self.norm(self.first(x))))).mean((2, 3))


def tiny():
    torch.manual_seed(0)
    return reprune.prune(Tiny().eval(), images(), sparsity=0.4, rule="uniform")[0]


@pytest.mark.filterwarnings("ignore:Skipping serialization of skipfiles")  # of torch 2.6
@pytest.mark.usefixtures("inductor")
def test_compiled():
    """By Inductor, with code for this machine."""
    network, x = tiny(), images(4)
    fast = follow("torch.compile", small=network)["fast"]
    with torch.no_grad():
        torch.testing.assert_close(fast(x), network(x), rtol=1e-5, atol=1e-5)


def quantized(network, count):
    pytest.importorskip("torchao", reason=NEEDS)
    observer = pytest.importorskip("torch.ao.quantization.observer")
    if not hasattr(observer, "AffineQuantizedObserverBase"):
        pytest.skip("torchao 0.13 quantizes for export with torch 2.7 or newer")
    calibration = [images(16, seed=seed) for seed in range(count)]
    return follow("int8", small=network, images=images(4), calibration=calibration)["int8"]


def test_int8_after_pruning(small):
    """Weights in int8, answers near those in float."""
    network = quantized(small, 4)
    int8 = [t for t in network.state_dict().values() if t.dtype == torch.int8 and t.dim() > 1]
    weights = [p for p in small.parameters() if p.dim() > 1]
    assert sorted(t.numel() for t in int8) == sorted(p.numel() for p in weights)
    x = images(64, seed=9)
    with torch.no_grad():
        expected, found = small(x), network(x)
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.95


def test_int8_kernels(inductor):
    """onnxruntime, and Inductor with oneDNN, whose sums can overflow without `reduce_range`."""
    pytest.importorskip("onnxscript", reason=NEEDS)
    pytest.importorskip("onnxruntime", reason=NEEDS)
    network = tiny()
    with torch.no_grad():  # all products large and of one sign
        network.norm.bias.fill_(3.0)
        network.second.weight.fill_(0.05)
    network, x = quantized(network, 2), images(16, seed=9)
    with torch.no_grad(), inductor.patch(freezing=False):  # the page sets it for good
        fast = follow("int8 by Inductor", int8=network, images=x)["fast"]
        found, expected = fast(x), network(x)
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    follow("int8 in onnxruntime", int8=network, images=x)
    assert (in_onnxruntime("int8.onnx", x) - expected).abs().max() < 0.05 * expected.abs().max()
