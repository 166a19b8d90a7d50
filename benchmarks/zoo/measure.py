"""One network of the zoo table, measured in a process of its own."""

from __future__ import annotations

import contextlib
import copy
import re
import statistics
import tempfile
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import flop_counter  # noqa: F401, as it imports Triton: its memory is not the plan's
from torch.utils._pytree import tree_leaves

import reprune
from benchmarks.memory import peak_of, size_of
from benchmarks.zoo.networks import OTHERS, Network
from benchmarks.zoo.peer import beside
from reprune.graph import ChannelGraph, certifying
from reprune.graph.model_trace import Certified
from reprune.modules.norms import for_any_width, norms_of
from reprune.modules.slicing import replace_tensors, slice_model
from reprune.timings import interleaved
from tests.helpers.masking import difference, masked, randomize

SETTINGS = {"scope": "all", "layers": "all", "rule": "uniform"}
DROPPED = 0.3
OUT_OF_REACH = re.compile(r"cannot be reached.* has (0\.\d+)")


def measure(network: Network, columns: Collection[str], target: float = 0.5) -> dict[str, Any]:
    """The `columns` of a row of the table. What failed is told under "problems", {column: error}."""
    row: dict[str, Any] = {"name": network.name, "kind": network.kind, "problems": {}}
    row["columns"] = sorted(columns)
    if row["columns"] == ["peer"]:
        with _problem(row, "peer"):
            beside(network, lambda: randomize(network.build()).eval(), _run, row)
        return row
    _warm_up()
    model = randomize(network.build()).eval()
    row["parameters"] = sum(p.numel() for p in model.parameters())
    plan = None
    with _problem(row, "plan"):
        example = network.example(model)
        start = perf_counter(), process_time()
        plan, row_of_reach = _planned(model, example, target)
        row |= row_of_reach
        row["plan_s"], row["plan_cpu_s"] = perf_counter() - start[0], process_time() - start[1]
        row["peak"] = 1 + peak_of(lambda: _planned(model, example, target)) / size_of(model)
        row["reached"] = plan.flops[1] / plan.flops[0]
        if network.kind in OTHERS:
            row["reached_internal"] = _reached(model, example, target, scope="internal")
    if plan is not None:
        with _problem(row, "exact"):
            graph = certifying(reprune.trace(model, example), SETTINGS["layers"], _right)
            _shares(row, graph)
            if "exact" in columns:
                _exact(row, network, model, graph)
            del graph
    if plan is None or not {"onnx", "latency"} & set(columns):
        return row
    small = copy.deepcopy(model)
    reprune.apply(plan, small)
    if "onnx" in columns:
        with _problem(row, "onnx"):
            row["onnx"] = _onnx(small, network.example(model))
    if "latency" in columns:
        with _problem(row, "latency"):
            row["latency"] = {n: _latency(model, small, network, n) for n in (1, 16)}
    return row


def _planned(
    model: nn.Module, example: Any, target: float, **changed: Any
) -> tuple[reprune.PruningPlan, dict[str, str]]:
    """Return the plan with `target` FLOPs, or the least that can be reached and why."""
    settings = {**SETTINGS, **changed}
    try:
        return reprune.make_plan(model, example, flops=target, **settings), {}
    except ValueError as error:
        if (least := OUT_OF_REACH.search(str(error))) is None:
            raise
        plan = reprune.make_plan(model, example, flops=float(least[1]) + 1e-3, **settings)
        return plan, {"out_of_reach": str(error)}


def _reached(model: nn.Module, example: Any, target: float, scope: str) -> float:
    """Return the FLOPs left by the plan for another scope; 1 where nothing in it may leave."""
    try:
        plan = _planned(model, example, target, scope=scope)[0]
    except ValueError:
        return 1.0
    return plan.flops[1] / plan.flops[0]


def _warm_up() -> None:
    """What a first plan loads is the process's, not the plan's."""
    small = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    for side in (8, 1700):  # with values, and too large for them
        reprune.make_plan(small, torch.zeros(1, 3, side, side), flops=0.5, **SETTINGS)


@contextlib.contextmanager
def _problem(row: dict[str, Any], column: str) -> Any:
    try:
        yield
    except Exception as error:
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", f"{type(error).__name__}: {error}")  # colours
        text = re.sub(r"\s+", " ", text)
        row["problems"][column] = text[:500]


def _right(graph: ChannelGraph, certified: Certified) -> ChannelGraph:
    """Return `graph` without the groups in which what :func:`_drop` drops fails its certificate."""
    while (right := certified(graph, _drop(graph))) is not graph:
        graph = right
    return graph


def _exact(row: dict[str, Any], network: Network, model: nn.Module, graph: ChannelGraph) -> None:
    """Drop 30 % of every group: is the pruned network the masked one, in evaluation and in training?"""
    slices = graph.traced.slices(_drop(graph))
    model = copy.deepcopy(model).double()
    example = network.example(model, torch.float64, small=True)
    smaller = slice_model(model, slices)
    model = in_full_precision(masked(model, slices, in_place=True))
    expected, expected_trained = _run(model, example), _train(model, example, backward=False)
    replace_tensors(
        model, smaller
    )  # in place: a second copy of the largest networks would not fit beside the first
    model = in_full_precision(model)
    row["error"] = difference(_run(model, example), expected)
    row["error_training"] = difference(_train(model, example), expected_trained)


def in_full_precision(model: nn.Module) -> nn.Module:
    """Return `model` with root mean square norms in float64: transformers' compute in float32 always."""
    norms = {name: norm for name, norm in norms_of(model).items() if norm.norm_kind == "rms"}
    return for_any_width(model, norms)


def _shares(row: dict[str, Any], graph: ChannelGraph) -> None:
    """Which share of the channels may leave, in scope "all" and "internal", and of the FLOPs may shrink."""
    free = np.zeros(graph.traced.atoms.count + 1)
    inner = free.copy()
    for group in graph.groups:
        free[group.atoms] = 1
        inner[group.atoms] = not group.added
    lines = list(graph.channels.values())
    everything = max(1, sum(line.size for line in lines))
    row["channels"] = sum(free[line].sum() for line in lines) / everything
    row["channels_internal"] = sum(inner[line].sum() for line in lines) / everything
    flops = graph.traced.flops
    shrinks = sum(amount for amount, dims in flops.terms if any(free[dim].any() for dim in dims))
    row["flops"] = shrinks / max(1, flops.full)
    row["groups"] = len(graph.groups)
    for group in graph.groups:
        if not graph.traced.heads.isdisjoint(group.atoms.tolist()):
            free[group.atoms] = 0
    shrinks = sum(amount for amount, dims in flops.terms if any(free[dim].any() for dim in dims))
    row["flops_without_heads"] = shrinks / max(1, flops.full)


def _drop(graph: ChannelGraph) -> np.ndarray:
    rng = np.random.default_rng(2)
    kept = graph.everything()
    for group in graph.groups:
        size = group.atoms.size
        kept[rng.choice(group.atoms, max(1, round(DROPPED * size)), replace=False)] = False
    return graph.traced.filled(kept)


def _mode(model: nn.Module, training: bool) -> None:
    """In training BatchNorms stay as in evaluation (one image is too few for statistics) and nothing is
    dropped by chance."""
    model.train(training)
    for module in model.modules():
        drops = "drop" in type(module).__name__.lower()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or drops:
            module.eval()
        for name, value in vars(module).items():  # transformers drops by functions, too
            if isinstance(value, float) and ("drop" in name or (drops and name == "p")):
                setattr(module, name, 0.0)


def _called(model: nn.Module, example: Any) -> Any:
    """What `model` returns for its arguments, given in order or by name."""
    example = copy.deepcopy(example)
    return model(**example) if isinstance(example, dict) else model(*example)


def _run(model: nn.Module, example: Any) -> list[torch.Tensor]:
    _mode(model, False)
    torch.manual_seed(0)
    with torch.no_grad(), _dense(model) as dense:
        outputs = tensors_of(_called(model, example))
    return dense if dense else outputs


HEADS = ("head", "rpn.head", "roi_heads.box_predictor")


@contextlib.contextmanager
def _dense(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """What a detector's heads say, before boxes are sorted by score, which rounding decides where scores are
    equal; its second stage looks at boxes that are given."""
    said: list[torch.Tensor] = []
    hooks = []
    for name, module in model.named_modules():
        if hasattr(model, "transform") and name in HEADS:
            hooks.append(module.register_forward_hook(lambda m, i, out: said.extend(tensors_of(out))))
        if hasattr(model, "transform") and name == "rpn":
            hooks.append(module.register_forward_hook(_given_boxes))
    try:
        yield said
    finally:
        for hook in hooks:
            hook.remove()


def _given_boxes(rpn: nn.Module, arguments: Any, output: Any) -> Any:
    """The proposals of a region proposal network, replaced."""
    images, dtype = arguments[0], output[0][0].dtype
    pick = torch.Generator().manual_seed(3)
    corners = 100 * torch.rand(len(images.image_sizes), 40, 2, 2, generator=pick, dtype=torch.float64)
    low, high = corners.amin(2), corners.amax(2) + 8
    return list(torch.cat([low, high], 2).to(dtype)), output[1]


def _train(model: nn.Module, example: Any, backward: bool = True) -> list[torch.Tensor]:
    """The outputs in training mode; gradients then arrive at parameters, in their shapes."""
    _mode(model, True)
    torch.manual_seed(0)
    with torch.set_grad_enabled(backward), _dense(model):
        outputs = tensors_of(_called(model, example))
    if backward:
        sum(x.sum() for x in outputs if x.requires_grad).backward()
        assert all(p.grad is None or p.grad.shape == p.shape for p in model.parameters())
        assert any(p.grad is not None for p in model.parameters())
    return [x.detach() for x in outputs]


def tensors_of(output: Any) -> list[torch.Tensor]:
    """All tensors of whatever a model returns."""
    plain = output if isinstance(output, (torch.Tensor, tuple, list, dict)) else vars(output)
    plain = dict(plain) if isinstance(plain, dict) else plain  # a subclass need not be a tree to PyTorch
    return [x for x in tree_leaves(plain) if isinstance(x, torch.Tensor)]


def _onnx(model: nn.Module, example: Any) -> float:
    """Largest difference between onnxruntime and eager on the exported network, relative to the largest
    output."""
    import onnxruntime

    model.eval()
    named = example if isinstance(example, dict) else {}
    arguments = () if named else example
    if arguments and isinstance(arguments[0], list):
        arguments = arguments[:1]  # detectors: without targets
    with torch.no_grad():
        expected = tensors_of(_called(model, named or arguments))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "model.onnx")
        torch.onnx.export(model, arguments, path, kwargs=named, dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = {
            i.name: x.numpy()
            for i, x in zip(session.get_inputs(), tree_leaves((arguments, named)), strict=True)
        }
        got = [torch.from_numpy(x) for x in session.run(None, inputs)]
    return difference(got, expected)


def _latency(dense: nn.Module, small: nn.Module, network: Network, batch: int) -> float:
    """Median time of the full network over that of the pruned one, taken in turns, channels_last."""
    example = network.example(dense)
    if network.kind == "detector":
        example = (example[0] * batch,)
    else:
        example = tuple(x.expand(batch, *x.shape[1:]).contiguous() for x in example)
    if network.kind in ("classifier", "timm", "segmenter"):
        example = tuple(x.to(memory_format=torch.channels_last) for x in example)
        dense, small = (m.to(memory_format=torch.channels_last) for m in (dense, small))
    calls = [lambda m=m: m(*copy.deepcopy(example)) for m in (dense.eval(), small.eval())]
    with torch.inference_mode():
        _, *times = interleaved(calls, perf_counter, lambda times: len(times) == 6)  # the first warms up
    full, pruned = (statistics.median(took) for took in zip(*times, strict=True))
    return full / pruned
