"""Build networks of transformers from a folder that `save_pretrained` wrote, and make inputs for them."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from .errors import UserError

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def is_folder(name: str) -> bool:
    """Return whether `name` is a folder with a configuration."""
    return (Path(name) / CONFIG).is_file()


def has_weights(name: str) -> bool:
    """Return whether the folder `name` has weights that can be read without running code from them."""
    return any((Path(name) / file).is_file() for file in WEIGHTS)


def build(name: str, empty: bool = False) -> nn.Module:
    """Return the network of the folder `name`, with its weights if there are some; nothing is downloaded.

    With `empty` its weights are not read.
    """
    transformers = _transformers(name)
    try:
        config = transformers.AutoConfig.from_pretrained(name, local_files_only=True)
        kind = _class_of(transformers, config)
        if has_weights(name) and not empty:
            model = kind.from_pretrained(name, local_files_only=True)
        else:
            model = kind(config)
    except Exception as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"transformers cannot build {name!r}: {first}") from error
    for module in model.modules():
        if hasattr(module, "config"):
            module.config.use_cache = False  # keys and values would be outputs, which keep their heads
    assert isinstance(model, nn.Module)
    return model


def _class_of(transformers: Any, config: Any) -> Any:
    """Return the class that the configuration names, else that of the network without a head."""
    for name in getattr(config, "architectures", None) or ():
        if hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.MODEL_MAPPING[type(config)]


def inputs(name: str, model: Any, size: tuple[int, ...] | None, batch: int) -> dict[str, Any]:
    """Return arguments for one pass: an image of `size` or the configuration's, or a text that means nothing.

    Raises `UserError` if neither is what the network takes.
    """
    config, main = model.config, model.main_input_name
    if main == "pixel_values":
        side = getattr(config, "image_size", None) or 224
        sides = tuple(side) if isinstance(side, (list, tuple)) else (side, side)
        shape = size or (getattr(config, "num_channels", 3), *sides)
        return {main: torch.randn(batch, *shape)}
    if main != "input_ids":
        raise UserError(f"{name!r} takes {main}; give a function that returns it with --inputs")
    tokens = torch.randint(1, config.get_text_config().vocab_size, (batch, 16))
    given = {main: tokens}
    if getattr(config, "is_encoder_decoder", False):
        given["decoder_input_ids"] = tokens[:, :8]
    return given


def _transformers(name: str) -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise UserError(
            f"{name!r} is a folder of transformers, which is missing: pip install transformers"
        ) from error
    return transformers
