"""From a trained ResNet-50 to a file in int8: prune, tune, quantise, export, run in onnxruntime.

    pip install -e ".[demo,vision,deploy]"
    python examples/int8_resnet50.py                 # 5,000 handwritten digits, which come with a package
    python examples/int8_resnet50.py --smoke         # a rehearsal: a small ResNet-18, generated images

The network is trained for a few epochs, so that it has something to lose. What is compared is the class that
the pruned network names in float and in int8, on images that it has not seen.  docs/deployment.md has the
steps one by one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
from torchvision.models import resnet50
from torchvision.models.resnet import BasicBlock, ResNet

import reprune
from reprune.demo import data
from reprune.files.atomic import atomic_write


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flops", type=float, default=0.5, help="share left, default %(default)s")
    parser.add_argument("--images", type=int, default=200, help="to compare on, default %(default)s")
    parser.add_argument("--training-images", type=int, default=4000, help="default %(default)s")
    parser.add_argument("--epochs", type=int, default=4, help="before pruning, default %(default)s")
    parser.add_argument("--tune", type=int, default=4, help="epochs after it, default %(default)s")
    parser.add_argument("--inductor", action="store_true", help="run it compiled, too")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where files are left")
    parser.add_argument("--smoke", action="store_true", help="a small network, generated images")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)  # before the training, not after
    torch.manual_seed(0)
    (images, labels), (test, truth) = generated() if options.smoke else digits(options)
    model: nn.Module = (
        ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10) if options.smoke else resnet50(num_classes=10)
    )
    train(model, images, labels, options.epochs)
    small, plan = reprune.prune(
        model, images[:1], flops=options.flops, scope="all", rule="uniform", round_to=8
    )
    print(f"FLOPs {plan.flops[0]:,} -> {plan.flops[1]:,}", flush=True)
    train(small, images, labels, options.tune)
    reprune.save(small, options.out / "small.safetensors")
    compare(small.eval(), images, test, truth, options)


def compare(
    small: nn.Module, images: Tensor, test: Tensor, truth: Tensor, options: argparse.Namespace
) -> None:
    """Quantise `small` on `images`, export it, and say how often its forms name the class that it names."""
    int8 = quantized(small, images[:256].split(32))
    file = options.out / "int8.onnx"
    program = torch.export.export(
        int8, (test[:2],), dynamic_shapes=({0: torch.export.Dim("batch", max=1024)},)
    )
    onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    with atomic_write(file) as out:
        out.write(onnx.model_proto.SerializeToString())
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "float": small,
        "int8": int8,
        "int8 in onnxruntime": lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]),
    }
    if options.inductor:
        from torch._inductor import config

        config.freezing = True  # weights become part of the program, in int8
        forms["int8 by Inductor"] = torch.compile(int8)
    expected = named(small, test)
    print(f"{'':20} agreement  accuracy  seconds, {len(test)} images")
    for form, network in forms.items():
        start = time.perf_counter()
        classes = named(network, test)
        seconds = time.perf_counter() - start
        agreement, accuracy = (float((classes == other).float().mean()) for other in (expected, truth))
        print(f"{form:20} {agreement:9.1%} {accuracy:9.1%} {seconds:8.2f}")
    for what in (options.out / "small.safetensors", file):
        print(f"{what}: {what.stat().st_size / 1e6:.1f} MB")


def quantized(model: nn.Module, batches: Sequence[Tensor]) -> nn.Module:
    """`model` with weights and activations in int8, whose ranges are those on `batches`."""
    # Without VNNI instructions pairs of products are summed in 16 bits, which eight bits of both overflow.
    reduced = not torch.cpu._is_vnni_supported()
    config = x86.get_default_x86_inductor_quantization_config(reduce_range=reduced)
    quantizer = x86.X86InductorQuantizer().set_global(config)
    shapes = ({0: torch.export.Dim("batch", max=1024)},)
    with torch.no_grad():
        # strict: else the quantiser takes two calls of one module (torchvision's relu) for one operation
        program = torch.export.export(model, (batches[0],), dynamic_shapes=shapes, strict=True)
        prepared = prepare_pt2e(program.module(), quantizer)
        for batch in batches:
            prepared(batch)
        converted: nn.Module = convert_pt2e(prepared)
    return converted


def train(model: nn.Module, images: Tensor, labels: Tensor, epochs: int) -> None:
    steps = epochs * -(-len(images) // 50)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    model.train()
    for epoch in range(epochs):
        start = time.perf_counter()
        for batch in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {time.perf_counter() - start:.0f} s", flush=True)


def named(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """[N] the class that `network` names for each image."""
    with torch.no_grad():
        return torch.cat([network(x).argmax(1) for x in images.split(50)])


def digits(options: argparse.Namespace) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    found = data.load(seed=0).first(options.training_images)

    def fitting(images: Tensor) -> Tensor:  # [N, 1, 28, 28] -> [N, 3, 32, 32]
        return F.pad(images, (2, 2, 2, 2), value=float(images.min())).repeat(1, 3, 1, 1)

    test = fitting(found.test_images[: options.images]), found.test_labels[: options.images]
    return (fitting(found.train_images), found.train_labels), test


def generated() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """A pattern for each class, and noise."""
    patterns = torch.randn(10, 3, 32, 32)
    labels = torch.randint(10, (300,))
    images = patterns[labels] + 0.5 * torch.randn(300, 3, 32, 32)
    return (images[:250], labels[:250]), (images[250:], labels[250:])


if __name__ == "__main__":
    main()
