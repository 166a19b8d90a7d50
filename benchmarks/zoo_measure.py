"""One network of the zoo table, measured in a process of its own."""

from __future__ import annotations

import contextlib
import copy
import re
import resource
import statistics
import sys
import tempfile
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import flop_counter  # noqa: F401, as it imports Triton: its memory is not the plan's
from torch.utils._pytree import tree_leaves
from zoo_networks import Network

import reprune
from reprune.graph import ChannelGraph, build_graph, cut_all, put

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from zoo import difference, masked, randomize

SETTINGS = {"scope": "all", "layers": "all", "rule": "uniform"}
DROPPED = 0.3


def measure(network: Network, onnx: bool, latency: bool, target: float = 0.5) -> dict[str, Any]:
    """A row of the table.  What failed is told under "problems", {column: error}."""
    row: dict[str, Any] = {"name": network.name, "kind": network.kind, "problems": {}}
    before = _memory("VmRSS")
    model = randomize(network.build()).eval()
    own = max(_memory("VmRSS") - before, _size(model))
    row["parameters"] = sum(p.numel() for p in model.parameters())
    plan = None
    with _problem(row, "plan"):
        _forget_peak()
        start = perf_counter()
        plan = reprune.make_plan(model, network.example(model, torch.float32), flops=target, **SETTINGS)
        row["plan_s"] = perf_counter() - start
        row["peak"] = (_memory("VmHWM") - before) / own
        row["reached"] = plan.flops[1] / plan.flops[0]
        row["settings"] = SETTINGS
    with _problem(row, "exact"):
        _exact(row, network, copy.deepcopy(model))
    if plan is None:
        return row
    dense = model if latency else None
    small = copy.deepcopy(model) if latency else model
    reprune.apply(plan, small)
    if onnx:
        with _problem(row, "onnx"):
            row["onnx"] = _onnx(small, network.example(model, torch.float32))
    if dense is not None:
        with _problem(row, "latency"):
            row["latency"] = {n: _latency(dense, small, network, n) for n in (1, 16)}
    return row


@contextlib.contextmanager
def _problem(row: dict[str, Any], column: str) -> Any:
    try:
        yield
    except Exception as error:
        text = re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")
        row["problems"][column] = text[:500]


def _exact(row: dict[str, Any], network: Network, model: nn.Module) -> None:
    """Drop 30 % of every group: is the pruned network the masked one, in evaluation and in training?"""
    start = perf_counter()
    example = network.example(model, torch.float32)
    graph = build_graph(model, example, layers="all")
    row["graph_s"] = perf_counter() - start
    _shares(row, graph)
    kept = _drop(graph)
    if (failure := graph.certify(kept)) is not None:
        raise AssertionError(f"the certificate rejects it: {failure.reason}")
    slices = graph.traced.slices(kept)
    model, example = model.double(), network.example(model, torch.float64)
    small = copy.deepcopy(model)
    put(small, cut_all(small, slices))
    got, trained = _run(small, example, False), _run(small, example, True)
    _backward(small, example)
    model = masked(model, slices, in_place=True)
    row["error"] = difference(got, _run(model, example, False))
    row["error_training"] = difference(trained, _run(model, example, True))


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
        if isinstance(module, nn.modules.batchnorm._BatchNorm) or "drop" in type(module).__name__.lower():
            module.eval()


def _run(model: nn.Module, example: Any, training: bool) -> list[torch.Tensor]:
    _mode(model, training)
    torch.manual_seed(0)
    with torch.no_grad():
        return [x.detach() for x in tree_leaves(_plain(model(*copy.deepcopy(example))))]


def _plain(output: Any) -> Any:
    return output if isinstance(output, (torch.Tensor, tuple, list, dict)) else vars(output)


def _backward(model: nn.Module, example: Any) -> None:
    """A training step's gradients arrive at every parameter that had to learn, in its shape."""
    _mode(model, True)
    torch.manual_seed(0)
    leaves = [x for x in tree_leaves(_plain(model(*copy.deepcopy(example)))) if x.requires_grad]
    sum(x.sum() for x in leaves).backward()
    assert all(p.grad is None or p.grad.shape == p.shape for p in model.parameters())
    assert any(p.grad is not None for p in model.parameters())
    model.zero_grad(set_to_none=True)


def _onnx(model: nn.Module, example: Any) -> float:
    """Largest difference between onnxruntime and eager on the exported network, relative to the largest
    output."""
    import onnxruntime

    model.eval()
    arguments = example[:1] if isinstance(example[0], list) else example  # detectors: without targets
    with torch.no_grad():
        expected = tree_leaves(_plain(model(*copy.deepcopy(arguments))))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(Path(folder) / "model.onnx")
        torch.onnx.export(model, arguments, path, dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        inputs = {
            i.name: x.numpy() for i, x in zip(session.get_inputs(), tree_leaves(arguments), strict=True)
        }
        got = [torch.from_numpy(x) for x in session.run(None, inputs)]
    return difference(got, expected)


def _latency(dense: nn.Module, small: nn.Module, network: Network, batch: int) -> float:
    """Median time of the full network over that of the pruned one, taken in turns, channels_last."""
    example = network.example(dense, torch.float32)
    if network.kind == "detector":
        example = (example[0] * batch,)
    else:
        example = tuple(x.expand(batch, *x.shape[1:]).contiguous() for x in example)
    if network.kind in ("classifier", "timm", "segmenter"):
        example = tuple(x.to(memory_format=torch.channels_last) for x in example)
        dense, small = (m.to(memory_format=torch.channels_last) for m in (dense, small))
    times: dict[int, list[float]] = {0: [], 1: []}
    with torch.inference_mode():
        for turn in range(6):
            for k, model in enumerate((dense.eval(), small.eval())):
                start = perf_counter()
                model(*copy.deepcopy(example))
                if turn:
                    times[k].append(perf_counter() - start)
    return statistics.median(times[0]) / statistics.median(times[1])


def _size(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])


def _memory(what: str) -> int:
    """Bytes, of this process: VmRSS now, VmHWM at most since :func:`_forget_peak`."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux: the peak since the start is all there is
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (line,) = [line for line in status.read_text().splitlines() if line.startswith(what)]
    return int(line.split()[1]) * 1024


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
