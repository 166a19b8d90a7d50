"""Pruned networks out in the world: other processes, torch.export, ONNX, torch.compile, half precision, int8.

docs/deployment.md tells how; what is missing here is skipped with the reason.
"""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from deployed import exported, in_onnxruntime
from networks import images, small_resnet
from safetensors.torch import load_file, save_file
from torch import nn

import reprune

NEEDS = 'needs pip install "reprune[deploy]"'


@pytest.fixture(scope="module")
def small():
    """Pruned through residual streams and a depthwise convolution, to sizes that no one would choose."""
    network, plan = reprune.prune(small_resnet(), images(), sparsity=0.5, scope="all")
    assert not plan.skipped
    assert any(len(kept) % 4 for kept in plan.keep.values())
    return network


def test_round_trip_through_another_process(small, tmp_path):
    """Save; load with the network's code alone, export, run in onnxruntime: the same answers."""
    pytest.importorskip("onnxruntime", reason=NEEDS)
    pytest.importorskip("onnxscript", reason=NEEDS)
    x = images(5)
    reprune.save(small, tmp_path / "small.safetensors")
    save_file({"images": x}, tmp_path / "images.safetensors")
    script = Path(__file__).with_name("deployed.py")
    run = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    answers = load_file(tmp_path / "answers.safetensors")
    with torch.no_grad():
        expected = small(x)
    assert torch.equal(answers["eager"], expected)
    assert torch.equal(answers["export"], expected)
    torch.testing.assert_close(answers["onnxruntime"], expected, rtol=1e-5, atol=1e-5)
    more = images(9, seed=1)  # any batch size
    torch.testing.assert_close(
        in_onnxruntime(tmp_path / "small.onnx", more), small(more), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(small, tmp_path, dtype):
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
    cast = copy.deepcopy(small).to(dtype)
    reprune.save(cast, tmp_path / "half.safetensors")
    loaded = reprune.load(tmp_path / "half.safetensors", small_resnet(seed=1))
    assert {t.dtype for t in loaded.parameters()} == {dtype}
    assert torch.equal(loaded(x.to(dtype)), cast(x.to(dtype)))


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
    """Compiles in seconds."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 24, 3, padding=1)
        self.norm = nn.BatchNorm2d(24)
        self.second = nn.Conv2d(24, 5, 3, padding=1)

    def forward(self, x):
        return self.second(torch.relu(self.norm(self.first(x)))).mean((2, 3))


def tiny():
    torch.manual_seed(0)
    return reprune.prune(Tiny().eval(), images(), sparsity=0.4, rule="uniform")[0]


def test_compiled():
    """By Inductor, with code for this machine."""
    network, x = tiny(), images(4)
    torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(network)(x), network(x), rtol=1e-5, atol=1e-5)


def quantized(network, calibration):
    """int8 by PT2E as docs/deployment.md does it."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    config = x86.get_default_x86_inductor_quantization_config(reduce_range=not torch.cpu._is_vnni_supported())
    quantizer = x86.X86InductorQuantizer().set_global(config)
    with torch.no_grad():
        prepared = prepare_pt2e(exported(network, calibration[0]).module(), quantizer)
        for batch in calibration:
            prepared(batch)
        return convert_pt2e(prepared)


def test_int8_after_pruning(small, tmp_path):
    """Weights in int8, answers near those in float, and onnxruntime agrees."""
    pytest.importorskip("torchao", reason=NEEDS)
    pytest.importorskip("onnxscript", reason=NEEDS)
    pytest.importorskip("onnxruntime", reason=NEEDS)
    network = quantized(small, [images(16, seed=seed) for seed in range(4)])
    int8 = [t for t in network.state_dict().values() if t.dtype == torch.int8 and t.dim() > 1]
    weights = [p for p in small.parameters() if p.dim() > 1]
    assert sorted(t.numel() for t in int8) == sorted(p.numel() for p in weights)
    x = images(64, seed=9)
    with torch.no_grad():
        expected, found = small(x), network(x)
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()
    assert (found.argmax(1) == expected.argmax(1)).float().mean() > 0.95
    file = tmp_path / "int8.onnx"
    torch.onnx.export(exported(network, x), dynamo=True, verbose=False).save(file)
    assert (in_onnxruntime(file, x) - found).abs().max() < 0.05 * expected.abs().max()


def test_int8_compiled():
    """With the int8 kernels of oneDNN, whose sums overflow on older processors without `reduce_range`."""
    pytest.importorskip("torchao", reason=NEEDS)
    import torch._inductor.config

    network = quantized(tiny(), [images(16, seed=seed) for seed in range(2)])
    torch._dynamo.reset()
    x = images(16, seed=9)
    with torch.no_grad(), torch._inductor.config.patch(freezing=True):
        found, expected = torch.compile(network)(x), network(x)
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
