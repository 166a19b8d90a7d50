"""Build networks of timm by name, `timm/resnet50`, and prepare images as timm does for them."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from torch import nn

from ..arguments import similar
from .errors import UserError

PREFIX = "timm/"


def build(name: str) -> nn.Module:
    """Return the network `name`, with its prefix, with random weights; a tag (`.a1_in1k`) may follow."""
    timm, own = _timm(name), name.removeprefix(PREFIX)
    if not timm.is_model(own):
        close = similar(own, timm.list_models())
        hint = f"; did you mean {' or '.join(PREFIX + one for one in close)}?" if close else ""
        raise UserError(f"timm has no model {own!r}{hint}")
    try:
        model = timm.create_model(own, pretrained=False)
    except Exception as error:  # an unknown tag, or a package that the network needs
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"timm cannot build {own!r}: {first}") from error
    assert isinstance(model, nn.Module)
    return model


def input_size(name: str) -> tuple[int, ...] | None:
    """Return the shape of one input of the network `name`, None where timm does not tell it."""
    found = _settings(name).get("input_size")
    return None if found is None else tuple(found)


def transform(name: str, size: Sequence[int]) -> Any:
    """Return what timm does to images for the network `name`, at another size where `size` is one."""
    settings = _settings(name)
    known = {key: settings[key] for key in ("mean", "std", "interpolation", "crop_pct") if settings.get(key)}
    return _timm(name).data.create_transform(tuple(size), is_training=False, **known)


def _settings(name: str) -> dict[str, Any]:
    found = _timm(name).get_pretrained_cfg(name.removeprefix(PREFIX))
    return {} if found is None else found.to_dict()


def _timm(name: str) -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise UserError(f"{name!r} is looked up in timm, which is missing: pip install timm") from error
    return timm
