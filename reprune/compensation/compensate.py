"""Compensate a pruned network: check what is given, fit, and write the new values."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from ..aliases import Progress
from ..arguments import number, one_of, shown
from ..graph import preserving
from ..modules.copying import whole_copy
from ..modules.heads import running_alike
from ..modules.rng import generators_kept
from ..modules.sharded import refuse_sharded
from ..modules.slicing import named_tensors, sliced_shape
from ..modules.wrappers import eagerly, named_modules, unwrap
from ..plan import PruningPlan
from .fitting import Fitting
from .images import Images, collected
from .modes import evaluating
from .pair import Pair
from .report import CompensatedLayer, CompensationReport
from .sequence import Sequence as Operations
from .sequence import observed

_PROBED = 4
"""Images of the run that shows which operations there are."""
_LAYERS = ("all", "pruned")


@torch.inference_mode(False)
def compensate(
    dense: nn.Module,
    small: nn.Module,
    plan: PruningPlan,
    images: Any,
    *,
    ridge: float | str = "auto",
    layers: str = "all",
    progress: Progress | None = None,
) -> CompensationReport:
    """Fit a pruned network to the dense one on a few hundred images, without labels or training.

    Each convolution and Linear layer, from the first one that lost inputs on, gets the weight and the bias
    by which its outputs come closest to those of the dense network: least squares over the positions of its
    output, with what the layers before it compute now as inputs. The mean of a BatchNorm follows. Everything
    runs once, in evaluation mode and on copies of both; shapes do not change, and a layer is changed only if
    that does better on images that were left out of the fit.

    Sums are float64. The images are read into memory, at most 2,048 of them or 0.5 GiB; the rest is not
    read. The activations of all images between two layers take about 1 GiB at most: on larger maps fewer
    images are used, which have more positions each. Of a layer with many positions some are drawn, always
    the same. How the images are batched has no influence. Random generators stay as they were.

    A weight that is used several times gets one solution for all uses. Left alone are weights that another
    operation uses too (as a fused attention or an LSTM), or that are computed; the report says so.

    Args:
        dense: The network that was pruned, as it was.
        small: The network that `plan` made of it. Its values are changed, all or, on an error, none.
        plan: The plan.
        images: What the network takes, without labels: a tensor `[N, ...]`, or an iterable of batches such
            as a DataLoader. A batch is a tensor; a list, of which the first item is used and the rest are
            labels; a tuple of positional or a dictionary of keyword arguments. 256 images are a good number,
            from the data that the network was trained on, prepared like those that it will see.
        ridge: `"auto"`, chosen for each layer by cross-validation over images in four parts (two for layers
            of more than 1,024 inputs), or a number above 0 for all layers, in units of the mean variance of a
            layer's inputs. With a number no layer is left alone for its error.
        layers: `"all"`, every layer from the first one that lost inputs on, or `"pruned"`, only those that
            lost inputs.
        progress: A function that is called as `progress("compensate", done, total)`. Default: none.

    Returns:
        What became of each layer; `print(report)` shows it.

    Raises:
        ValueError: `small` or `dense` does not fit the plan, or they are one; there are fewer than two
            images, NaN among them, or of different sizes; the networks fail or overflow on them. Then `small`
            is as it was.
        TypeError: An argument has a wrong type.

    Examples:
        >>> import torch, reprune
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3))
        >>> images = torch.randn(64, 3, 12, 12)
        >>> small, plan = reprune.prune(model, images[:2], keep={"0": 8})
        >>> report = reprune.compensate(model, small, plan, images)
        >>> [(layer.name, layer.after < layer.before) for layer in report.layers]
        [('3', True)]
    """
    begun = time.perf_counter()
    if not isinstance(plan, PruningPlan):
        raise TypeError(f"plan: expected a PruningPlan, such as make_plan returns; got {shown(plan)}")
    fixed = check_ridge(ridge)
    one_of(layers, "layers", _LAYERS)
    dense, small = (_network(model, name) for model, name in ((dense, "dense"), (small, "small")))
    _check_fit(dense, small, plan)
    with generators_kept(), eagerly():
        found = collected(images, dense)
        fitting, pair = _fitted(dense, small, plan, found, fixed, layers == "pruned", progress)
    tensors = named_tensors(small)
    with torch.no_grad():
        for name, value in fitting.values.items():
            tensors[name].copy_(value)
    return CompensationReport(
        layers=(*fitting.layers.values(), *_unseen(pair, small, plan)),
        images=found.count,
        seconds=time.perf_counter() - begun,
        norms=len(fitting.norms & fitting.values.keys()),
    )


def check_ridge(ridge: object) -> float | None:
    """Return the ridge, None for "auto"; raise an error that names the argument if it is neither."""
    if isinstance(ridge, str) and ridge == "auto":
        return None
    value = number(ridge, "ridge", expected := 'a finite number above 0 or "auto"')
    if not (0 < value < math.inf):
        raise ValueError(f"ridge: expected {expected}; got {ridge!r}")
    return value


def _network(model: object, name: str) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name}: expected a torch.nn.Module; got {shown(model)}")
    refuse_sharded(model, "each process alone cannot run it on images", name)
    return unwrap(model)[0]


def _check_fit(dense: nn.Module, small: nn.Module, plan: PruningPlan) -> None:
    """Raise `ValueError` unless `plan` makes networks like `small` of `dense`."""
    try:
        plan.check(dense)
    except ValueError as error:
        raise ValueError(f"dense: {str(error).removeprefix('plan: ')}") from None
    if dense is small:
        raise ValueError("small: expected the pruned network; got the dense one itself")
    whole, cut = named_tensors(dense), named_tensors(small)
    for name, tensor in whole.items():
        shape = sliced_shape(tensor.shape, plan.slices.get(name, {}))
        found = tuple(cut[name].shape) if name in cut else None
        if found != shape:
            what = "has none" if found is None else f"has {found}"
            raise ValueError(
                f"small: expected what the plan makes of dense, with {name} {shape}; this one {what}"
            )
        if tensor.data_ptr() == cut[name].data_ptr() and tensor.numel():
            raise ValueError(
                f"small: expected tensors of its own; it shares {name} with dense, which would change"
            )
    if {t.device for t in whole.values()} != {t.device for t in cut.values()}:
        raise ValueError("small: expected it on the device of dense")


@contextmanager
def _copies(*models: nn.Module) -> Iterator[list[nn.Module]]:
    """Yield copies, whose buffers and attributes may change; what they share, as hooks, stays as it was."""
    with ExitStack() as kept:
        for model in models:
            kept.enter_context(preserving(model))
        yield [whole_copy(model) for model in models]


def _fitted(
    dense: nn.Module,
    small: nn.Module,
    plan: PruningPlan,
    images: Images,
    ridge: float | None,
    lost_only: bool,
    progress: Progress | None,
) -> tuple[Fitting, Pair]:
    tensors = [*small.parameters(), *small.buffers()]
    kinds = {x.dtype for x in tensors if x.is_floating_point()}
    dtype = kinds.pop() if len(kinds) == 1 else None
    device = tensors[0].device
    probed = min(_PROBED, images.count)
    with (
        _copies(dense, small) as (dense, small),
        torch.no_grad(),
        evaluating(dense, small),
        running_alike(dense, small),
    ):
        sequences = [
            _observed(model, name, images, (probed, device, dtype))
            for model, name in ((dense, "dense"), (small, "small"))
        ]
        names = [[event.name for event in sequence.events] for sequence in sequences]
        if names[0] != names[1]:
            raise ValueError(
                "small: it runs other layers than dense, or in another order, on the same images"
            )
        pair = Pair(dense, small, plan.slices, images, device, dtype, (sequences[0], sequences[1]), probed)
        fitting = Fitting(pair, ridge, lost_only)
        fitting.run(progress)
    return fitting, pair


def _observed(
    model: nn.Module, name: str, images: Images, how: tuple[int, torch.device, torch.dtype | None]
) -> Operations:
    probed, device, dtype = how
    try:
        return observed(model, images.inputs(0, probed, device, dtype))
    except Exception as error:
        first = next(iter(str(error).splitlines()), "")
        raise ValueError(
            f"{images.name}: the {name} network fails on them with {type(error).__name__}: {first}; it was "
            f"given {images.shown()}"
        ) from error


def _unseen(pair: Pair, small: nn.Module, plan: PruningPlan) -> Sequence[CompensatedLayer]:
    """Return the weights that lost inputs, as far as their shape tells, and in no operation were seen."""
    modules = named_modules(small)
    seen = pair.sequences[1].uses
    rows = []
    for name, dims in plan.slices.items():
        layer = name.rpartition(".")[0] or name
        if name in seen or not any(dim >= 1 for dim in dims) or isinstance(modules.get(layer), nn.Embedding):
            continue
        other = pair.sequences[1].elsewhere.get(name)
        reason = f"its weight is used by {other}" if other else "no operation uses it in evaluation mode"
        rows.append(CompensatedLayer(layer, reason=reason))
    return rows
