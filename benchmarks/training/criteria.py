"""Other criteria in the place of REPrune's, for comparisons; everything but the choice stays as it is."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch_pruning
from torch import Tensor, nn

from reprune.clustering.problem import LayerProblem

OURS = {"REPrune, ties random": "random", "REPrune, ties norm": "norm"}
"""{name: tie rule}."""
Scores = Callable[[LayerProblem, nn.Module, np.random.Generator], np.ndarray]
"""[O] of the filters that are there; the largest stay."""


def group_importance(
    problem: LayerProblem, model: nn.Module, importance: torch_pruning.importance.Importance
) -> np.ndarray:
    """Torch-Pruning's importance of the channels that leave with those of the convolution."""
    conv = model.get_submodule(problem.name)
    inputs = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels
    graph = torch_pruning.DependencyGraph().build_dependency(model, torch.zeros(1, inputs, 28, 28))
    channels = list(range(conv.out_channels))
    group = graph.get_pruning_group(conv, torch_pruning.prune_conv_out_channels, channels)
    return importance(group).numpy()


def l1(problem: LayerProblem, model: nn.Module, rng: np.random.Generator) -> np.ndarray:
    """L1 norm of the filter, as Torch-Pruning has it ("standard L1 norm")."""
    magnitude = torch_pruning.importance.MagnitudeImportance(p=1, normalizer=None, group_reduction="first")
    return group_importance(problem, model, magnitude)


def group_l1(problem: LayerProblem, model: nn.Module, rng: np.random.Generator) -> np.ndarray:
    """Torch-Pruning's L1 norm of the group: filter, BatchNorm scale and the next layer's input slice."""
    magnitude = torch_pruning.importance.MagnitudeImportance(p=1, normalizer=None, group_reduction="mean")
    return group_importance(problem, model, magnitude)


def bn_gamma(problem: LayerProblem, model: nn.Module, rng: np.random.Generator) -> np.ndarray:
    """Absolute BatchNorm scale (network slimming, Liu et al., 2017)."""
    return model.get_parameter(f"{problem.name.replace('conv', 'bn')}.weight").detach().abs().numpy()


def fpgm(problem: LayerProblem, model: nn.Module, rng: np.random.Generator) -> np.ndarray:
    """Sum of the distances to the layer's other filters (He et al., 2019)."""
    filters = model.get_parameter(f"{problem.name}.weight").detach().flatten(1)
    return torch.cdist(filters, filters).sum(1).numpy()


def random(problem: LayerProblem, model: nn.Module, rng: np.random.Generator) -> np.ndarray:
    """Drawn anew each time."""
    return rng.random(problem.tables[0].shape[1])


OTHERS: dict[str, Scores] = {
    "random": random,
    "L1 (Torch-Pruning)": l1,
    "group L1 (Torch-Pruning)": group_l1,
    "BN gamma": bn_gamma,
    "FPGM": fpgm,
}


def choice(criterion: str, model: nn.Module, seed: int) -> dict[str, Any]:
    """The arguments of `make_plan` and `Pruner` by which `criterion` selects in `model`."""
    if criterion in OURS:
        return {"ties": OURS[criterion]}
    rng = np.random.default_rng(seed)

    def select(problem: LayerProblem) -> np.ndarray:
        scores = OTHERS[criterion](problem, model, rng)
        return np.argsort(-scores, kind="stable")[: problem.keep]

    return {"select": select}


def recompute_statistics(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """BatchNorm's means and variances, as averages over `batches`."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
    model.train()
    with torch.no_grad():
        for x in batches:
            model(x)
