"""Run attentions with some of their heads that take the width of all heads to be that of their input.

Those of many vision transformers do (timm's BEiT, EVA, CaiT, XCiT and their descendants). A module that loses
heads, or whose input loses channels, changes its class in place for one that stores the width of its heads,
and back when both are as wide again. The forward pass is its own, but for that number.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from fractions import Fraction
from pickle import UnpicklingError
from types import FunctionType
from typing import TYPE_CHECKING, Any

from torch import nn

from .linear import only_linear
from .pickling import by_whole_class
from .rewriting import OF_KEYS, OF_QUERIES, WIDTH_OF, methods_of, rewritten, words_of
from .sharded import plain_class
from .sizes import current_weight

HEADS = {
    "num_heads": "timm, torchvision, transformers (ViT, CLIP, Swin)",
    "num_attention_heads": "transformers (BERT, Swin)",
    "n_heads": "transformers (DistilBERT, T5), llama",
    "n_head": "nanoGPT, transformers (BLOOM)",
    "nhead": "fairseq, DETR's descendants",
    "heads": "diffusers, vit-pytorch",
    "num_query_heads": "OpenELM",
    "groups": "timm (DaViT)",
}
"""{name of the number of heads: who uses it}."""


class WithOwnWidth:
    """An attention that stores the width of all heads together; it has a class of its own for each kind.

    Attributes:
        width_of_heads: That of all heads together.
        width_of_input: That of what queries, keys or values are made of.
    """

    if TYPE_CHECKING:  # else TorchScript would read it, in place of what the whole class says
        width_of_heads: int
        width_of_input: int
        _layers_of_input: frozenset[str]
        _layers_made: frozenset[str]

    def _of_heads(self, width: int) -> int:
        """Return how wide the heads are, of which the whole attention says that they are as its input."""
        return width * self.width_of_heads // self.width_of_input

    def _made(self, width: int, now: int) -> int:
        """Return how wide a result is, of which the whole attention says that it is as its input.

        It is `now` so wide; 0 where that was another width always.
        """
        return width * now // self.width_of_input if now > 0 else width

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Pickle by the class of the whole attention: this one is made as it is needed."""
        return by_whole_class(super().__reduce_ex__(max(protocol, 2)), _new, whole_class(type(self)))


def _new(whole: Any, *arguments: Any) -> Any:
    kind = class_with_own_width(whole)
    if kind is None:
        raise UnpicklingError(
            f"an attention with its own width of heads is made from the source of {whole.__module__}."
            f"{whole.__qualname__}, which cannot be read here or takes no width for another any more"
        )
    return kind.__new__(kind, *arguments)


_OWN = ("_of_heads", "_made", "_layers_of_input", "_layers_made", "width_of_heads", "width_of_input")
"""The names that the class adds; a class that has one of them stays as it is."""


def class_with_own_width(whole: Any) -> Any:
    """Return the class that an attention of class `whole` takes without all its heads; None for most classes.

    It has the methods that take the width of the heads from the input's, rewritten. Where a method of
    `whole` has been replaced since, it is another class.
    """
    if issubclass(whole, WithOwnWidth) or plain_class(whole) is not whole:
        return None
    return _with_own_width(whole, tuple(methods_of(whole, nn.Module).values()))


@functools.lru_cache(maxsize=1024)
def _with_own_width(whole: Any, methods: tuple[FunctionType, ...]) -> Any:
    """Return the class for `whole`, which has these `methods` now."""
    found = rewritten(whole, nn.Module, HEADS)
    if not found.methods or any(hasattr(whole, name) for name in _OWN):
        return None
    if not found.made.isdisjoint(("heads", "input")):
        return None  # their widths would have the names of the others
    named = {
        "__module__": __name__,
        "__doc__": whole.__doc__,
        "__annotations__": getattr(whole, "__annotations__", {}),
        "_layers_of_input": found.of_input,
        "_layers_made": found.made,
    }
    try:
        return type(whole)(f"{whole.__name__}OfFewerHeads", (WithOwnWidth, whole), {**found.methods, **named})
    except Exception:  # what it does to classes that derive from it is its own
        return None


def whole_class(kind: Any) -> Any:
    """Return the class that a module of class `kind` has when all of its heads are there."""
    return kind.__mro__[2] if WithOwnWidth in kind.__bases__ else kind


Widths = dict[str, int]
"""{attribute of :class:`WithOwnWidth`: width}; all are the same in a whole attention."""


def widths_of(module: nn.Module, share: Fraction = Fraction(1)) -> Widths | None:
    """Return the widths of `module` by its weights; None if it is none that takes one for the other.

    Its layers may say how wide they were when they were last as their weights; `share` of the queries are
    left since then.
    """
    if not module._modules or not any(type(module.__dict__.get(name)) is int for name in HEADS):
        return None
    kind: Any = type(module)
    fewer = kind if WithOwnWidth in kind.__bases__ else class_with_own_width(kind)
    if fewer is None:
        return None
    layers = _layers(module, fewer._layers_of_input)
    before = module.__dict__["width_of_heads"] if fewer is kind else _width_of_whole(module, layers)
    weights = (current_weight(layer) for layer in layers)
    inputs = {weight.shape[1] for weight in weights if weight is not None}
    if before is None or len(inputs) != 1:
        return None
    widths = {"width_of_heads": int(before * share), "width_of_input": inputs.pop()}
    for name in fewer._layers_made:
        tells = module.__dict__[WIDTH_OF + name] > 0 if fewer is kind else None
        widths[WIDTH_OF + name] = _width_made(module._modules.get(name), before, tells)
    if fewer is not kind and any(hasattr(module, name) for name in widths):
        return None  # it has something else of that name
    return widths


def _layers(module: nn.Module, names: Collection[str]) -> list[nn.Linear]:
    """Return the Linear layers that have one of these `names`, or make queries, keys or values."""
    inside = [
        only_linear(child)
        for name, child in module._modules.items()
        if child is not None and (name in names if names else words_of(name) & (OF_QUERIES | OF_KEYS))
    ]
    return [layer for layer in inside if isinstance(layer, nn.Linear)]


def _width_of_whole(module: nn.Module, layers: Collection[nn.Linear]) -> int | None:
    """Return the width of the input of an attention of which the heads are together as wide.

    Its layers say so, which may have other weights since.
    """
    before = {layer.in_features for layer in layers}
    if len(before) != 1:
        return None
    (width,) = before
    makers = _layers(module, ())
    return width if any(layer.out_features in (width, 2 * width, 3 * width) for layer in makers) else None


def _width_made(layer: nn.Module | None, before: int, tells: bool | None) -> int:
    """Return how wide the results of `layer` are, or 0.

    It is 0 where that is not known or, as `tells` says or else the layer itself, was not the width `before`.
    """
    if not isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)) or getattr(layer, "transposed", False):
        return 0
    weight = current_weight(layer)
    if tells is None:
        tells = before == (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)
    return weight.shape[0] if weight is not None and tells else 0


def set_widths_of_heads(module: nn.Module, widths: Widths | None) -> None:
    """Give `module` the class for its `widths`: its own if they are the same."""
    if widths is None:
        return
    if len(set(widths.values()) - {0}) > 1:
        make_of_fewer(module, widths)
    elif isinstance(module, WithOwnWidth):
        make_whole(module)


def make_of_fewer(module: nn.Module, widths: Widths) -> None:
    """Give `module` the class that stores its `widths`."""
    kind = class_with_own_width(whole_class(type(module)))
    object.__setattr__(module, "__class__", kind)
    module.__dict__.update(widths)


def make_whole(module: nn.Module) -> None:
    """Give `module` back its own class."""
    kind: Any = type(module)
    object.__setattr__(module, "__class__", whole_class(kind))
    for name in ("heads", "input", *kind._layers_made):
        del module.__dict__[WIDTH_OF + name]
