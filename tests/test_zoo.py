"""Pruned equals masked, on torchvision's architectures."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from reprune.graph import build_graph
from reprune.modules.slicing import replace_tensors, slice_model
from tests.helpers.masking import difference, masked, randomize

torchvision = pytest.importorskip("torchvision")

ARCHITECTURES = {
    "resnet18": (3, 64, 64),
    "resnet50": (3, 64, 64),
    "short resnet50": (3, 64, 64),
    "wide_resnet50_2": (3, 64, 64),
    "resnext50_32x4d": (3, 64, 64),
    "short resnext50_32x4d": (3, 64, 64),
    "vgg16_bn": (3, 32, 32),
    "densenet121": (3, 64, 64),
    "short densenet121": (3, 64, 64),
    "mobilenet_v2": (3, 64, 64),
    "short mobilenet_v2": (3, 64, 64),
    "mobilenet_v3_small": (3, 64, 64),
    "mobilenet_v3_large": (3, 64, 64),
    "efficientnet_b0": (3, 64, 64),
    "short efficientnet_b0": (3, 64, 64),
    "regnet_y_400mf": (3, 64, 64),
    "short regnet_y": (3, 64, 64),
    "googlenet": (3, 96, 96),
    "inception_v3": (3, 299, 299),
    "mnasnet1_0": (3, 64, 64),
    "shufflenet_v2_x1_0": (3, 64, 64),
    "squeezenet1_1": (3, 64, 64),
    "r3d_18": (3, 4, 32, 32),
    "short r3d": (3, 4, 32, 32),
}
WITH_HEADS = {"googlenet", "inception_v3"}
BOTTLENECK = torchvision.models.resnet.Bottleneck
MBCONV = torchvision.models.efficientnet.MBConvConfig
REGNET, VIDEO = torchvision.models.regnet, torchvision.models.video.resnet
SHORT = {  # as their namesakes, with fewer of the blocks that those repeat
    "short resnet50": lambda: torchvision.models.ResNet(BOTTLENECK, [1, 2, 1, 1]),
    "short resnext50_32x4d": lambda: torchvision.models.ResNet(
        BOTTLENECK, [1, 2, 1, 1], groups=32, width_per_group=4
    ),
    "short densenet121": lambda: torchvision.models.DenseNet(32, (3, 3, 3, 3), 64),
    "short regnet_y": lambda: REGNET.RegNet(
        REGNET.BlockParams([1, 2], [48, 104], [8, 8], [1.0, 1.0], [2, 2], se_ratio=0.25)
    ),
    "short mobilenet_v2": lambda: torchvision.models.MobileNetV2(
        inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]]
    ),
    "short r3d": lambda: VIDEO.VideoResNet(
        VIDEO.BasicBlock, [VIDEO.Conv3DSimple] * 4, [1, 1, 1, 1], VIDEO.BasicStem
    ),
    "short efficientnet_b0": lambda: torchvision.models.EfficientNet(
        [MBCONV(1, 3, 1, 32, 16, 1), MBCONV(6, 3, 2, 16, 24, 2), MBCONV(6, 5, 2, 24, 40, 1)], dropout=0.2
    ),
}
LARGEST = {
    "inception_v3",
    "vgg16_bn",
    "wide_resnet50_2",
    "mobilenet_v3_large",
    "regnet_y_400mf",
    "r3d_18",
    "mnasnet1_0",  # of mobilenet_v2's blocks
    "googlenet",  # squeezenet1_1 joins branches too
    *(name.removeprefix("short ") for name in SHORT),
}


def build(name):
    extra = {"init_weights": False} if name in WITH_HEADS else {}
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torchvision's own initialisation
        model = SHORT[name]() if name in SHORT else torchvision.models.get_model(name, weights=None, **extra)
    return randomize(model.double()).eval()


def drop_a_third(graph, scope, rng):
    """30 % of every group of `scope`."""
    kept = graph.everything()
    for group in graph.groups:
        if scope == "all" or not group.added:
            size = group.atoms.size
            kept[rng.choice(group.atoms, max(1, round(0.3 * size)), replace=False)] = False
    return kept


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGEST else n for n in ARCHITECTURES]
)
def test_pruned_equals_masked(name):
    model = build(name)
    x = torch.randn(2, *ARCHITECTURES[name], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    graph = build_graph(model, x)
    assert graph.groups
    assert graph.traced.training_problem is None
    before = copy.deepcopy(model.state_dict())
    for scope in ("internal", "all"):
        kept = drop_a_third(graph, scope, np.random.default_rng(2))
        assert graph.certify(kept) is None
        slices = graph.traced.slices(kept)
        small = copy.deepcopy(model)
        replace_tensors(small, slice_model(small, slices))
        full = masked(model, slices)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            got = small(x)
        with torch.no_grad():
            assert difference(got, full(x)) < 1e-9
            assert difference(model(x), full(x)) > 1e-6  # the channels that went did count
        assert counter.get_total_flops() == round(graph.traced.flops.at(kept.astype(float)))
        assert sum(p.numel() for p in small.parameters()) == round(graph.traced.params.at(kept.astype(float)))
        trains_a_step(small, x)
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def trains_a_step(model, x):
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()  # two small images are too few for statistics
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    output = model(x)
    sum(part.sum() for part in (output if isinstance(output, tuple) else (output,))).backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in model.parameters())
    optimizer.step()


def test_everything_is_named():
    """A convolution is in a group or skipped with a reason: nothing is skipped silently."""
    for name in ("shufflenet_v2_x1_0", "squeezenet1_1", "resnet18"):
        model = build(name)
        graph = build_graph(model, torch.randn(1, 3, 64, 64, dtype=torch.float64))
        convolutions = {n for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)}
        grouped = {p.name for group in graph.groups for p in group.producers}
        assert grouped | graph.skipped.keys() == convolutions
        assert not grouped & graph.skipped.keys()
        assert all(graph.skipped.values())
