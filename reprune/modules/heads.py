"""Update what attention modules keep of their heads as attributes, after their layers were sliced.

A forward pass that reads a number of heads, `view(batch, tokens, self.num_heads, self.head_dim)`, needs the
number of those that are left. A module that keeps it under a name that is not here keeps its heads: with some
of them it fails the certificate.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction

from torch import nn

from .attention import AttentionOfFewerHeads
from .held import modules_of
from .linear import is_turned, only_linear, outputs_of
from .norms import NormOfFewerChannels
from .own_width import HEADS, WithOwnWidth, make_of_fewer, make_whole, set_widths_of_heads, widths_of
from .rewriting import OF_KEYS, OF_QUERIES, words_of
from .sizes import current_weight
from .wrappers import named_modules

KEY_HEADS = {
    "num_key_value_heads": "transformers (Llama and its descendants)",
    "num_kv_heads": "timm, torchtune, transformers (Falcon)",
    "n_kv_heads": "llama",
    "n_kv_head": "nanochat",
}
"""{name of the number of heads of keys and values, each for several of the queries: who uses it}."""
SERVED = {"num_key_value_groups": "transformers (Llama and its descendants)", "n_rep": "llama"}
"""{name of the number of queries' heads for each of the keys': who uses it}."""
WIDTHS = {
    "all_head_size": "transformers (BERT, ViT)",
    "attn_dim": "timm",
    "key_attn_dim": "timm (EfficientFormer, LeViT)",
    "val_attn_dim": "timm (EfficientFormer, LeViT)",
    "inner_dim": "diffusers, transformers (T5)",
    "out_dim": "TinyViT",
    "dim_out": "timm (Hiera, MViTv2)",
    "dim_out_qk": "timm (bottleneck attention)",
    "dim_out_v": "timm (bottleneck and halo attention)",
    "output_dim": "torchtune",
    "embed_dim": "transformers (BART, CLIP), fairseq",
    "hidden_size": "transformers (BLOOM, Falcon)",
    "split_size": "transformers (GPT-2)",
    "out_dim_projection": "transformers (LeViT)",
}
"""{name of the width of all heads together: who uses it}."""

CACHES = ("attention_bias_cache",)
"""Names of what is computed once for all heads and kept: LeViT of transformers and timm."""


def _twins() -> dict[type[nn.Module], type[nn.Module]]:
    """Return {class that runs with all heads only: class that runs with fewer}.

    Those of torchvision are there once someone has imported its models.
    """
    if "torchvision.models" not in sys.modules:
        return {nn.MultiheadAttention: AttentionOfFewerHeads}
    from .windows import TWINS

    return {nn.MultiheadAttention: AttentionOfFewerHeads, **TWINS}


def sync_heads(model: nn.Module) -> None:
    """Update the attributes of all attention modules, after norms and before their Linear layers."""
    twins = _twins()
    whole = {fewer: kind for kind, fewer in twins.items()}
    modules = modules_of(model)
    for module in modules:
        kind = whole.get(type(module), type(module))
        if kind is nn.MultiheadAttention:
            _resize(module)
        elif "bias_shape" in module.__dict__:
            _resize_bias(module)
        elif module._modules:
            queries = _scale(module)
            if kind in twins:
                module.__class__ = kind if _has_all_heads(module) else twins[kind]
            elif queries is not None:
                set_widths_of_heads(module, widths_of(module, queries))
    for module in modules:
        if isinstance(module, nn.TransformerEncoderLayer):
            _keep_layer_from_fast_path(module)
    for module in modules:
        if isinstance(module, nn.TransformerEncoder):
            _keep_from_fast_path(module)


def for_any_heads(model: nn.Module) -> nn.Module:
    """Return `model`, a disposable copy, with attentions that run with any heads.

    A trace and that of a slice are to see the same operations. Subclasses have forward passes of their own.
    What modules have computed for all heads is computed anew.
    """
    twins = _twins()
    for module in modules_of(model):
        if type(module) in twins:
            module.__class__ = twins[type(module)]
        elif (widths := widths_of(module)) is not None:
            make_of_fewer(module, widths)
        _forget(module)
    return model


@contextlib.contextmanager
def running_alike(dense: nn.Module, small: nn.Module) -> Iterator[None]:
    """Inside the block, run those attentions of `dense` by parts that have lost heads in `small`."""
    twins, there = _twins(), named_modules(dense)
    changed: list[tuple[nn.Module, type[nn.Module] | None]] = []
    for name, module in named_modules(small).items():
        whole = there.get(name)
        if whole is None or type(whole) is type(module):
            continue
        if twins.get(type(whole)) is type(module):
            changed.append((whole, type(whole)))
        elif isinstance(module, WithOwnWidth) and (widths := widths_of(whole)) is not None:
            changed.append((whole, None))
            make_of_fewer(whole, widths)
    for module, kind in changed:
        if kind is not None:
            module.__class__ = twins[kind]
    try:
        yield
    finally:
        for module, kind in changed:
            if kind is not None:
                module.__class__ = kind
            else:
                make_whole(module)


def is_attention(module: nn.Module) -> bool:
    """Return whether `module` holds the weights of its queries, keys and values itself."""
    return isinstance(module, nn.MultiheadAttention)


def _resize(module: nn.Module) -> None:
    """Set the sizes of a torch.nn.MultiheadAttention, and the class that can run with these heads."""
    assert isinstance(module, nn.MultiheadAttention)
    parameters = module._parameters
    query = (
        parameters["in_proj_weight"]
        if parameters.get("q_proj_weight") is None
        else parameters["q_proj_weight"]
    )
    out = module.out_proj._parameters.get("weight")
    if query is None or out is None or out.shape[1] % module.head_dim:
        return
    width = query.shape[1]
    module.num_heads, module.embed_dim = out.shape[1] // module.head_dim, width
    for name, size in (("k_proj_weight", "kdim"), ("v_proj_weight", "vdim")):
        weight = parameters.get(name)
        setattr(module, size, width if weight is None else weight.shape[1])
    module.__class__ = nn.MultiheadAttention if out.shape == (width, width) else AttentionOfFewerHeads


def _resize_bias(module: nn.Module) -> None:
    """Update what a module keeps that makes a bias for each head and two positions: timm's `RelPosBias`."""
    shape, table = module.__dict__["bias_shape"], module._parameters.get("relative_position_bias_table")
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    heads = table.shape[1] if table is not None and table.dim() == 2 else None
    if table is None and layers and (weight := current_weight(layers[-1])) is not None:
        heads = weight.shape[0]
    if heads is not None and type(shape) is tuple and len(shape) == 3:
        module.__dict__["bias_shape"] = (*shape[:2], heads)
        if "num_heads" in module.__dict__:
            module.__dict__["num_heads"] = heads


def _has_all_heads(module: nn.Module) -> bool:
    """Return whether the heads of an attention of torchvision are together as wide as its input."""
    layer = module._modules.get("qkv", module._modules.get("to_qkv"))
    weight = current_weight(layer) if isinstance(layer, nn.Linear) else None
    return weight is None or weight.shape[0] == 3 * weight.shape[1]


def _keep_layer_from_fast_path(layer: nn.TransformerEncoderLayer) -> None:
    """Turn the fast path of a layer off whose norms have lost channels, which it does not know of."""
    fewer = any(isinstance(norm, NormOfFewerChannels) for norm in (layer.norm1, layer.norm2))
    if fewer and type(layer.self_attn) is nn.MultiheadAttention:
        layer.self_attn.__class__ = AttentionOfFewerHeads


def _keep_from_fast_path(encoder: nn.TransformerEncoder) -> None:
    """Turn nested tensors off, which only the fast path of layers with all heads takes, or on again."""
    fewer = any(type(module) is AttentionOfFewerHeads for module in encoder.modules())
    kept = encoder.__dict__
    if fewer and kept.get("use_nested_tensor"):
        kept["use_nested_tensor"], kept["_reprune_nested"] = False, True
    elif not fewer and kept.pop("_reprune_nested", False):
        kept["use_nested_tensor"] = True


def _scale(module: nn.Module) -> Fraction | None:
    """Scale the numbers of heads of `module` as the rows of its Linear layers; return the queries' share."""
    queries, keys = _share(module, OF_QUERIES), _share(module, OF_KEYS)
    if queries is not None and queries != 1:
        _multiply(module, (*HEADS, *WIDTHS), queries)
        _forget(module)
        if keys is not None:
            _multiply(module, SERVED, queries / keys)
    if keys is not None and keys != 1:
        _multiply(module, KEY_HEADS, keys)
    return keys if queries is None else queries


def _forget(module: nn.Module) -> None:
    """Let `module` compute anew what it keeps for all heads."""
    for name in CACHES:
        if module.__dict__.get(name):
            module.__dict__[name] = {}


def _share(module: nn.Module, words: frozenset[str]) -> Fraction | None:
    """Return which share of their rows all Linear layers have that are named so; None if they differ.

    The layer may be inside of the module that is named so, with a norm.
    """
    shares = {
        Fraction(weight.shape[int(is_turned(layer))], outputs_of(layer))
        for name, child in module._modules.items()
        if child is not None and words_of(name) & words
        if (layer := only_linear(child)) is not None and (weight := current_weight(layer)) is not None
    }
    return shares.pop() if len(shares) == 1 else None


def _multiply(module: nn.Module, names: Iterable[str], share: Fraction) -> None:
    """Multiply the attributes `names` of `module`, those that stay whole numbers."""
    for name in names:
        value = module.__dict__.get(name)
        if type(value) is int and (value * share).denominator == 1:
            module.__dict__[name] = int(value * share)
