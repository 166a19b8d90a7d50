"""Networks with every parameter and statistic drawn at random, and the network that pruning must equal.

A dropped channel is one that no consumer sees: the *masked* network is the full one in which the consumers'
input slices are zeroed. Where a norm over channels loses some, all tensors of dropped channels are zeroed, as
the norm sees them too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from reprune.graph import build_graph
from reprune.modules.norms import norms_of
from reprune.modules.slicing import replace_tensors, slice_model


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights kept at their scale; affine parameters and statistics of all norms drawn at random."""
    generator = torch.Generator().manual_seed(seed)

    def draw(tensor: Tensor, low: float, high: float) -> None:
        tensor.data.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator))

    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm):
            if module.weight is not None:
                draw(module.weight, 0.5, 1.5)
            if module.bias is not None:
                draw(module.bias, -0.5, 0.5)
            if getattr(module, "running_mean", None) is not None:
                draw(module.running_mean, -0.5, 0.5)
                draw(module.running_var, 0.5, 1.5)
    for parameter in model.parameters():  # heads of zeros, scales of 1e-6: nothing behind them would count
        if parameter.dim() > 0 and bool((parameter == parameter.flatten()[0]).all()):
            draw(parameter, -0.1, 0.1)
    return model


def consumers(model: nn.Module) -> dict[str, int]:
    """{weight: its input dimension} of every layer that sums over channels."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            found[f"{name}.weight"] = 0 if getattr(module, "transposed", False) else 1
        if type(module).__name__ == "Conv1D":  # GPT-2's Linear layers: inputs first
            found[f"{name}.weight"] = 0
        if isinstance(module, nn.MultiheadAttention):
            found[f"{name}.in_proj_weight"] = 1
    return found


def masked(
    model: nn.Module, slices: Mapping[str, Mapping[int, np.ndarray]], in_place: bool = False
) -> nn.Module:
    """The full network in which what reads the dropped channels is zeroed, or all of them (see above)."""
    full = model if in_place else copy.deepcopy(model)
    inputs = consumers(model)
    tensors = dict(full.named_parameters()) | dict(full.named_buffers())
    weights = [f"{name}.weight" for name in norms_of(model)]
    everything = any(name in slices or name not in tensors for name in weights)
    for name, dims in slices.items():
        for dim, kept in dims.items():
            if everything or inputs.get(name) == dim:
                tensor = tensors[name].data
                dropped = np.setdiff1d(np.arange(tensor.shape[dim]), kept)
                tensor.index_fill_(dim, torch.from_numpy(dropped).to(tensor.device), 0)
    return full


def difference(a: object, b: object) -> float:
    """Largest difference of two outputs (tensors, tuples, dictionaries), relative to the largest value."""
    from torch.utils._pytree import tree_leaves

    worst = 0.0
    for x, y in zip(tree_leaves(a), tree_leaves(b), strict=True):
        assert x.shape == y.shape
        if not x.numel():
            continue
        x, y = x.detach(), y.detach()
        relative = float((x.double() - y.double()).abs().max() / y.double().abs().max().clamp_min(1e-300))
        worst = max(worst, relative) if relative == relative else float("inf")  # NaN agrees with nothing
    return worst


def exact(model, x, seeds=(0,), share=None, layers="conv"):
    """Drop random atoms of every group, check pruned = masked; returns the graph."""
    graph = build_graph(model, x, layers=layers)
    for seed in seeds:
        rng = np.random.default_rng(seed)
        kept = graph.everything()
        for group in graph.groups:
            size = group.atoms.size
            drop = int(rng.integers(0, size)) if share is None else round(share * size)
            kept[rng.choice(group.atoms, drop, replace=False)] = False
        kept = graph.traced.filled(kept)
        assert graph.certify(kept) is None
        slices = graph.traced.slices(kept)
        small = copy.deepcopy(model)
        replace_tensors(small, slice_model(small, slices), graph.traced.widths(kept))
        with torch.no_grad():
            assert difference(small(x), masked(model, slices)(x)) < 1e-9
    return graph


class Toy(nn.Module):
    """Two convolutions, and what a subclass does in between."""

    def __init__(self, out=8, into=8):
        super().__init__()
        self.a = nn.Conv2d(3, out, 3, padding=1)
        self.b = nn.Conv2d(into, 6, 3, padding=1)
        self.c = nn.Conv2d(6, 2, 1)

    def between(self, x):
        return x

    def forward(self, x):
        return self.c(torch.relu(self.b(self.between(self.a(x))))).mean((2, 3))
