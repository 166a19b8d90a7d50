"""The same network pruned by Torch-Pruning, and whether what is left is the network without those channels.

Half of every layer leaves by magnitude, as its examples do it: output layers keep their channels, `num_heads`
names queries, keys and values, whole heads leave where positions are rotated and numbers of each head
elsewhere, and the attributes of attention modules are set afterwards. In float64 every weight has a value of
its own, by which those that are left are found again.
"""

from __future__ import annotations

import copy
import resource
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.zoo.networks import Network
from tests.helpers.masking import difference

OUTPUTS = (
    "classifier lm_head segmentation_head predict kind.2 box.2 .kind .box .there text_projection "
    "visual_projection out_proj.dense classifier_distill"
).split()
"""Ends of the names of output layers."""
WHOLE_HEADS = {"llama", "mistral", "qwen3", "gpt_neox"}
QUERIES = {"q_proj", "query", "q", "q_lin", "queries"}
KEYS = {"k_proj", "v_proj", "key", "value", "k", "v", "k_lin", "v_lin"}
TOGETHER = {"qkv", "query_key_value"}
COUNTS = ("num_heads", "num_attention_heads", "n_heads")
ALL = ("all_head_size", "embed_dim", "inner_dim", "hidden_size", "dim")
EACH = ("head_dim", "attention_head_size", "key_value_proj_dim", "head_size")

MOST_BYTES = 2**33
"""Memory that the process may take: on some networks Torch-Pruning takes any amount."""

Run = Callable[[nn.Module, Any], list[Tensor]]
"""The outputs of a network on an example, in evaluation mode."""
Gone = dict[str, dict[int, Any]]
"""{parameter: {dimension: the positions that left}}."""


def beside(network: Network, build: Callable[[], nn.Module], run: Run, row: dict[str, Any]) -> None:
    """Add to `row` what Torch-Pruning makes of the network: seconds, FLOPs left, difference."""
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
    model = build()
    example = network.example(model)
    full = flops(model, example, run)
    begun = perf_counter()
    pruned(network, model, example)
    row["peer_s"] = perf_counter() - begun
    row["peer_reached"] = flops(model, example, run) / full
    model = distinct(build().double())
    dense, example = copy.deepcopy(model), network.example(model, torch.float64)
    pruned(network, model, example)
    expected = run(zeroed(dense, left_out(dense, model)), example)
    row["peer_error"] = difference(run(model, example)[:1], expected[:1])  # others may be inner activations


def flops(model: nn.Module, example: Any, run: Run) -> int:
    with FlopCounterMode(display=False) as counter:
        run(model, example)
    return int(counter.get_total_flops())


def pruned(network: Network, model: nn.Module, example: Any) -> None:
    """Remove half of the channels of `model`."""
    import torch_pruning as tp

    whole = network.name in WHOLE_HEADS
    if whole:  # as it knew these networks
        model.set_attn_implementation("eager")  # type: ignore[operator]
    pruner = tp.pruner.BasePruner(
        model,
        example,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        global_pruning=False,
        ignored_layers=[m for name, m in model.named_modules() if name.endswith(tuple(OUTPUTS))],
        num_heads=heads_of(model),
        prune_num_heads=whole,
        prune_head_dims=not whole,
        head_pruning_ratio=0.5 if whole else 0.0,
        customized_pruners={type(m): _merging(tp) for m in model.modules() if is_merging(m)},
        root_module_types=[nn.Conv2d, nn.Linear, *{type(m) for m in model.modules() if is_merging(m)}],
    )
    pruner.step()
    follow(model, None if whole else pruner.num_heads)


def is_merging(module: nn.Module) -> bool:
    """Whether four neighbours become one in it, as in Swin."""
    return hasattr(module, "reduction") and hasattr(module, "norm") and hasattr(module, "dim")


def _merging(tp: Any) -> Any:
    """What Torch-Pruning is to do with such a module, of which it has an example of its own."""

    class Merging(tp.BasePruningFunc):
        def prune_out_channels(self, layer: Any, idxs: list[int]) -> nn.Module:
            tp.prune_linear_out_channels(layer.reduction, idxs)
            return layer

        def prune_in_channels(self, layer: Any, idxs: list[int]) -> nn.Module:
            four = [i + k * layer.dim for k in range(4) for i in idxs]
            tp.prune_linear_in_channels(layer.reduction, four)
            if layer.norm.normalized_shape[0] == 4 * layer.dim:  # before; in the second version after
                tp.prune_layernorm_out_channels(layer.norm, four)
            return layer

        def get_out_channels(self, layer: Any) -> int:
            return layer.reduction.out_features

        def get_in_channels(self, layer: Any) -> int:
            return layer.dim

    return Merging()


def attentions(model: nn.Module) -> list[tuple[nn.Module, str, list[nn.Linear], list[nn.Linear]]]:
    """(Module, its attribute with the number of heads, layers of queries, of keys and values) of each."""
    found = []
    for module in model.modules():
        layers = {name: one for name, one in module.named_children() if isinstance(one, nn.Linear)}
        queries = [one for name, one in layers.items() if name in QUERIES | TOGETHER]
        count = next((name for name in COUNTS if isinstance(getattr(module, name, None), int)), None)
        if count is None and queries and hasattr(module, "config"):  # Llama's and its descendants'
            module.num_heads, count = module.config.num_attention_heads, "num_heads"
        if count is not None and queries:
            found.append((module, count, queries, [one for name, one in layers.items() if name in KEYS]))
    return found


def heads_of(model: nn.Module) -> dict[nn.Module, int]:
    """{layer of queries, keys or values: heads}."""
    found: dict[nn.Module, int] = {}
    for module, count, queries, keys in attentions(model):
        served = getattr(module, "num_key_value_groups", 1)
        found |= dict.fromkeys(queries, getattr(module, count))
        found |= dict.fromkeys(keys, getattr(module, count) // served)
    return found


def follow(model: nn.Module, heads: Mapping[nn.Module, int] | None) -> None:
    """Set what attention modules keep of `heads` and widths; None: each head is as wide as before."""
    for module, count, queries, keys in attentions(model):
        width = queries[0].out_features // (1 if keys else 3)
        if heads is None:
            each = int(module.head_dim)  # type: ignore[arg-type]
            setattr(module, count, width // each)
            if keys:
                module.num_key_value_groups = width // keys[0].out_features
            continue
        setattr(module, count, heads[queries[0]])
        sizes = dict.fromkeys(ALL, width) | dict.fromkeys(EACH, width // heads[queries[0]])
        for name, size in sizes.items():
            if isinstance(getattr(module, name, None), int):
                setattr(module, name, size)


def distinct(model: nn.Module) -> nn.Module:
    """`model` in float64 with no value twice in a tensor."""
    pick = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        noise = torch.rand(parameter.shape, generator=pick, dtype=torch.float64)
        parameter.data.mul_(1 + 1e-6 * noise).add_(1e-9 * noise)
    return model


def left_out(dense: nn.Module, small: nn.Module) -> Gone:
    """Find the values of `small` in `dense`, whose tensors have none twice."""
    before = dict(dense.named_parameters(remove_duplicate=False))
    gone: Gone = {}
    for name, parameter in small.named_parameters():
        old, new = before[name].detach().numpy(), parameter.detach().numpy()
        if old.shape == new.shape:
            continue
        order = np.argsort(old, axis=None)
        places = order[np.searchsorted(old.ravel(), new.ravel(), sorter=order).clip(max=old.size - 1)]
        if not np.array_equal(old.ravel()[places], new.ravel()):
            raise ValueError(f"{name}: has values that the dense network does not have there")
        for d, line in enumerate(np.unravel_index(places, old.shape)):
            if new.shape[d] < old.shape[d]:
                gone.setdefault(name, {})[d] = np.setdiff1d(np.arange(old.shape[d]), line)
    return gone


def zeroed(model: nn.Module, gone: Gone) -> nn.Module:
    """`model` with zeros in place of what left of its parameters."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, dims in gone.items():
        for d, positions in dims.items():
            parameters[name].data.index_fill_(d, torch.from_numpy(positions), 0)
    return model
