"""Run norms over channels after some of their channels have left.

A layer norm, a root mean square norm, a global response norm and a group norm of one group take statistics
over all channels. Channels that have left count as zeros there, so that those that stay are normalised as in
the network in which the others are zero. A module that loses channels changes its class in place, and back
when it has all.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from .copying import shared_copy
from .held import ATOMS
from .pickling import by_whole_class
from .sizes import NORMS, is_last_of_groups
from .wrappers import named_modules


def normalised(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, kind: str, dim: int, full_width: int, eps: float
) -> Tensor:
    """Return `x` normalised over its channels as if there were zeros for those that have left.

    Args:
        x: Of any shape, with C channels along `dim`.
        weight: [C], or of C numbers, by which the channels are multiplied; or None, but for "rms" and
            "response".
        bias: Of C numbers, which are added; or None.
        kind: "layer" (Ba et al. 2016, eq. 4), "rms" (Zhang and Sennrich 2019, eq. 4), "torch.rms", which
            is the same in the types of numbers of PyTorch's, "group" (Wu and He 2018) with one group, or
            "response" (Woo et al. 2023, algorithm 1), whose statistics are taken over all dimensions but
            the first.
        dim: The dimension of the channels.
        full_width: The number of channels with those that have left.
        eps: What is added to a mean before one divides by it, or by its root; negative where PyTorch
            chooses it by the type of `x`.

    Returns:
        Of the shape of `x`.
    """
    if not torch.jit.is_scripting() and has_torch_function_unary(x):
        return handle_torch_function(normalised, (x,), x, weight, bias, kind, dim, full_width, eps)
    width = x.shape[dim]
    gone = [0, full_width - width]
    if kind == "layer" or kind == "torch.rms" or kind == "group":
        scale = None if weight is None else F.pad(weight.flatten(), gone)
        shift = None if bias is None else F.pad(bias.flatten(), gone)
        last = x.dim() - 1  # a transposition to -1 fails in PyTorch's first exporter to ONNX
        if kind == "group":
            around = [0] * (2 * (last - dim))
            return F.group_norm(F.pad(x, around + gone), 1, scale, shift, eps).narrow(dim, 0, width)
        padded = F.pad(x.movedim(dim, last), gone)
        if kind == "layer":
            whole = F.layer_norm(padded, [full_width], scale, shift, eps)
        else:
            whole = F.rms_norm(padded, [full_width], scale, None if eps < 0 else eps)
        return whole[..., :width].movedim(last, dim)
    if weight is None:
        raise ValueError(f"weight: expected one for a norm of kind {kind}; got None")
    shape = [1] * x.dim()
    shape[dim] = width
    scale = weight.reshape(shape)
    if kind == "rms":
        exact = x if x.dtype == torch.float64 else x.float()
        mean = exact.pow(2).sum(dim, keepdim=True) / full_width
        return scale * (exact * torch.rsqrt(mean + eps)).to(x.dtype)
    if x.dim() != 4:
        raise ValueError(f"input: expected images of 4 dimensions; got a tensor of {x.dim()}")
    places = list(range(1, 4))
    places.remove(dim % x.dim())
    strength: Tensor = torch.linalg.vector_norm(x, 2.0, places, True)
    relative = strength / (strength.sum(dim, keepdim=True) / full_width + eps)
    out: Tensor = x + scale * (x * relative)
    return out if bias is None else out + bias.reshape(shape)


torch.fx.wrap("normalised")  # to torch.fx it is one operation


class Norm(NamedTuple):
    """What a norm over channels computes; the arguments of :func:`normalised`."""

    norm_kind: str
    norm_dim: int
    full_width: int
    norm_eps: float


class NormOfFewerChannels(nn.Module):
    """A norm over channels that takes those that have left as zeros; it has a class of its own for each norm.

    Attributes:
        full_width: The number of channels with those that have left.
    """

    if TYPE_CHECKING:
        weight: nn.Parameter | None
        full_width: int
        norm_kind: str
        norm_dim: int
        norm_eps: float

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run :meth:`forward`; its input may have the name that it has in the whole norm."""
        return super().__call__(*args, *kwargs.values())

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input` over its channels; return a tensor of its shape."""
        bias = getattr(self, "bias", None)
        return normalised(
            input, self.weight, bias, self.norm_kind, self.norm_dim, self.full_width, self.norm_eps
        )

    def extra_repr(self) -> str:
        """Say how many channels there are, and were."""
        eps = "by type" if self.norm_eps < 0 else f"{self.norm_eps:g}"
        return f"{width_of(self)} of {self.full_width} channels, eps={eps}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle by the class that the norm has with all channels: that of fewer is made as it is needed."""
        return by_whole_class(super().__reduce_ex__(max(protocol, 2)), _new, whole_class(type(self)))


def _new(whole: Any, *arguments: Any) -> Any:
    kind = _class_of_fewer(whole)
    return kind.__new__(kind, *arguments)


@functools.lru_cache(maxsize=1024)
def _class_of_fewer(whole: Any) -> Any:
    """Return the class that a norm of class `whole` takes once it has lost channels."""
    name = f"{whole.__name__}OfFewerChannels"
    return type(name, (NormOfFewerChannels, whole), {"__module__": __name__, "__doc__": whole.__doc__})


def whole_class(kind: Any) -> Any:
    """Return the class that a norm of class `kind` has when all of its channels are there."""
    return kind.__mro__[2] if kind.__mro__[1] is NormOfFewerChannels else kind


_KNOWN = {
    "torch.nn.modules.normalization.LayerNorm": ("layer", -1),
    "torch.nn.modules.normalization.RMSNorm": ("torch.rms", -1),
    "torch.nn.modules.normalization.GroupNorm": ("group", 1),
    "torchvision.models.convnext.LayerNorm2d": ("layer", 1),
    "timm.layers.norm.LayerNorm": ("layer", -1),
    "timm.layers.norm.LayerNorm2d": ("layer", 1),
    "timm.layers.norm.GroupNorm": ("group", 1),
    "timm.layers.norm.GroupNorm1": ("group", 1),
}
"""{class: what it computes, and along which dimension}."""

_EPS = ("eps", "variance_epsilon", "epsilon")
"""Names of the number that keeps a norm from dividing by zero."""

_GUESSES = [
    ("rms", -1), ("layer", -1), ("layer", 1), ("rms", 1), ("group", 1), ("response", -1), ("response", 1)
]  # fmt: skip


def norm_of(module: nn.Module) -> Norm | None:
    """Return what `module` computes if it is a norm over channels, else None.

    The norms of PyTorch, torchvision and timm are known by their class. Any other class with "norm" in its
    name is one if it has a weight for each channel and computes what one of them does.
    """
    kind = type(module)
    if issubclass(kind, NormOfFewerChannels):
        return Norm(*(module.__dict__[name] for name in Norm._fields))
    if "norm" not in kind.__name__.lower() and "GRN" not in kind.__name__:
        return None
    if isinstance(module, NORMS) and (getattr(module, "num_groups", 0) != 1 or is_last_of_groups(module)):
        return None
    weight = module._parameters.get("weight")
    known = _KNOWN.get(f"{kind.__module__}.{kind.__qualname__}")
    if weight is None:
        width = None if known is None else _width_without_weight(module)
    else:
        width = weight.numel() if max(weight.shape, default=0) == weight.numel() else None
    if width is None or module._modules:
        return None
    if known is None:
        return _probed(module)
    if weight is not None and weight.dim() > 1:
        return None
    eps = getattr(module, "eps", None)
    return Norm(*known, width, -1.0 if eps is None else float(eps))


def _width_without_weight(module: nn.Module) -> int | None:
    """Return how many channels a norm of PyTorch says that it has; None if it is over several dimensions."""
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    shape = module.__dict__.get("normalized_shape", ())
    return int(shape[0]) if len(shape) == 1 else None


def width_of(module: nn.Module) -> int:
    """Return how many channels a norm over channels has now."""
    weight = module._parameters.get("weight")
    width = _width_without_weight(module) if weight is None else weight.numel()
    assert width is not None
    return width


def _probed(module: nn.Module) -> Norm | None:
    """Return the norm that computes what `module` does on made-up values, or None."""
    kind = type(module)
    if len(inspect.signature(kind.forward).parameters) != 2:  # itself, and its input alone
        return None
    held = {name for name, value in module.__dict__.items() if not (_is_plain(value) or _is_empty(value))}
    if held - {"_parameters"}:  # a list or a function, of which the next norm may have another
        return _compared(module)
    plain = tuple((name, value) for name, value in sorted(module.__dict__.items()) if _is_plain(value))
    key = kind, plain, tuple(module._parameters), tuple(map(_width, module._parameters.values()))
    if key not in _found:
        _found[key] = _compared(module)
    return _found[key]


_found: dict[Any, Norm | None] = {}
"""What was found, by the class of the norm and its attributes."""


def _is_plain(value: Any) -> bool:
    return type(value) in ATOMS or (type(value) is tuple and all(map(_is_plain, value)))


def _is_empty(value: Any) -> bool:
    return isinstance(value, (dict, list, set)) and not value


def _width(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.numel()


class _Values(NamedTuple):
    """Made-up values on which a module and a norm are compared."""

    sides: tuple[int, ...]
    scale: float
    """Of the input."""
    gain: float
    """Of the weight."""
    shift: float
    """Of the bias."""


_VALUES = (
    _Values((2, 3, 5), 1e-3, 1.0, 1e-3),  # so small that it matters what is added to the variance
    _Values((3, 7, 4), 1e2, 1e2, 1e2),  # so large that a limit would be met
    _Values((4, 6), 1.0, 1.0, 1.0),  # tokens, which need not be taken
)


def _compared(module: nn.Module) -> Norm | None:
    own = {name: tensor for name, tensor in module._parameters.items() if tensor is not None}
    if own.keys() - {"weight", "bias"} or module._buffers:
        return None
    named = [value for name in _EPS if isinstance(value := module.__dict__.get(name), float)]
    new: dict[Tensor, Tensor] = {
        tensor: nn.Parameter(torch.empty(tensor.shape, dtype=torch.float64)) for tensor in own.values()
    }
    copied = shared_copy(module, new)
    for kind, dim in _GUESSES:
        for eps in named or (1e-5, 1e-6, 1e-8, 1e-12):
            norm = Norm(kind, dim, own["weight"].numel(), eps)
            modes = ((training, values) for training in (False, True) for values in _VALUES)
            if all(_agrees(copied.train(training), norm, values) for training, values in modes):
                return norm
    return None


@torch.no_grad()
def _agrees(module: nn.Module, norm: Norm, values: _Values) -> bool:
    """Return whether `module`, a disposable copy with parameters in float64, computes `norm` on `values`."""
    if len(values.sides) == 2 and norm.norm_kind == "response":
        return True  # it is of images only
    draw = torch.Generator().manual_seed(0)

    def drawn(dim: int) -> Tensor:
        sides = list(values.sides)
        sides.insert(len(sides) if dim == -1 else dim, norm.full_width)
        return values.scale * torch.randn(sides, generator=draw, dtype=torch.float64)

    x = drawn(norm.norm_dim)
    weight, bias = module._parameters["weight"], module._parameters.get("bias")
    assert weight is not None
    for tensor, scale in ((weight, values.gain), (bias, values.shift)):
        if tensor is not None:
            tensor.copy_(scale * torch.randn(tensor.shape, generator=draw, dtype=torch.float64))
    if len(values.sides) == 2 and norm.norm_dim != -1 and _result(module, drawn(-1)) is not None:
        return False  # of tokens it takes another dimension
    found = _result(module, x)
    if found is None:
        return len(values.sides) == 2
    return isinstance(found, Tensor) and _alike(found, normalised(x, weight, bias, *norm))


def _result(module: nn.Module, x: Tensor) -> Any:
    """Return what `module` makes of a copy of `x`; None where it takes other shapes and raises anything."""
    try:
        return module(x.clone())
    except Exception:
        return None


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Return whether two results are equal up to rounding, as some norms compute in float32."""
    if found.shape != expected.shape:
        return False
    return float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


def norms_of(model: nn.Module) -> dict[str, Norm]:
    """Return what the norms over channels of `model` compute, by name."""
    found = {name: norm_of(module) for name, module in named_modules(model).items()}
    return {name: norm for name, norm in found.items() if norm is not None}


def sync_norms(model: nn.Module, norms: Mapping[str, Norm], widths: Mapping[str, int]) -> None:
    """Give the `norms` of `model`, by name, the classes for the channels that they have.

    `widths`: of those without tensors, {name: channels}.
    """
    modules = named_modules(model) if norms else {}
    for name, norm in norms.items():
        module = modules[name]
        width = widths.get(name) if module._parameters.get("weight") is None else None
        width = width_of(module) if width is None else width
        if width == norm.full_width:
            _make_whole(module)
        else:
            _make_of_fewer(module, norm)
        _set_shape(module, width)


def for_any_width(model: nn.Module, norms: Mapping[str, Norm] | None = None) -> nn.Module:
    """Return `model`, a disposable copy, with norms that run with any channels: all, or `norms` by name."""
    norms = norms_of(model) if norms is None else norms
    modules = named_modules(model) if norms else {}
    for name, norm in norms.items():
        _make_of_fewer(modules[name], norm)
        _set_shape(modules[name], width_of(modules[name]))
    return model


def _make_of_fewer(module: nn.Module, norm: Norm) -> None:
    module.__class__ = _class_of_fewer(whole_class(type(module)))
    module.__dict__.update(norm._asdict())


def _make_whole(module: nn.Module) -> None:
    if isinstance(module, NormOfFewerChannels):
        module.__class__ = whole_class(type(module))
        for name in Norm._fields:
            del module.__dict__[name]


def _set_shape(module: nn.Module, width: int) -> None:
    """Update what norms of PyTorch, and classes derived from them, keep of their width."""
    for name, value in (("normalized_shape", (width,)), ("num_channels", width)):
        if name in module.__dict__:
            module.__dict__[name] = value
