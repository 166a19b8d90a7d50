"""Read the images of --calibrate: a folder of them, or what a function of the user's yields."""

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn

import reprune

from ..compensation.images import Images, collected
from ..compensation.report import CompensationReport
from ..plan import PruningPlan
from . import console as tables
from . import from_timm
from .errors import UserError
from .models import called, working_folder_importable
from .progress import Stages

COUNT = 256
"""Images of a folder that are used: so many of the sorted files, evenly spread."""
_BATCH = 16
_KINDS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"}
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def source(text: str, model: str, size: tuple[int, ...]) -> Iterable[Any]:
    """Return the batches that `text` names, for the network `model`, whose inputs have `size` (C, H, W).

    Raises `UserError` if there is no such folder or function.
    """
    folder = Path(text)
    if folder.is_dir():
        return _folder(folder, model, size)
    if ":" not in text:
        raise UserError(
            "--calibrate: expected a folder of images, or package.module:function; there is no folder "
            f"{text!r}"
        )
    with working_folder_importable():
        try:
            function = getattr(importlib.import_module(text.partition(":")[0]), text.partition(":")[2])
        except (ImportError, AttributeError) as error:
            raise UserError(f"--calibrate: there is no {text} ({error})") from error
        batches: Iterable[Any] = called(function, text)
    return batches


def read(batches: Iterable[Any], model: nn.Module) -> Images:
    """Return the images in `batches`; an error of them, or of what gives them, names the option."""
    whole = isinstance(batches, (torch.Tensor, Mapping, str, bytes)) or not isinstance(batches, Iterable)
    try:
        return collected(batches if whole else _given(batches), model, "--calibrate")
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error


def _given(batches: Iterable[Any]) -> Iterator[Any]:
    try:
        yield from batches
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--calibrate: reading the images failed: {type(error).__name__}: {error}") from error


def compensated(
    dense: nn.Module, small: nn.Module, plan: PruningPlan, images: Images, stages: Stages
) -> CompensationReport:
    """Fit `small` to `dense`; an error of the images names the option."""
    try:
        return reprune.compensate(dense, small, plan, images, progress=stages)
    except (ValueError, TypeError) as error:
        raise UserError(f"--calibrate: {str(error).removeprefix('--calibrate: ')}") from error


def as_dict(report: CompensationReport) -> dict[str, Any]:
    """Return the report as plain values; what is not known or infinite is None."""

    def plain(value: Any) -> Any:
        return None if isinstance(value, float) and not isfinite(value) else value

    layers = [{key: plain(value) for key, value in asdict(layer).items()} for layer in report.layers]
    return {**asdict(report), "layers": layers}


def show(report: CompensationReport) -> None:
    """Print a table of the layers."""
    rows = [
        (
            layer.name,
            f"{layer.inputs[1]} of {layer.inputs[0]}" if layer.inputs[0] else "",
            f"{100 * layer.before:.2f} %" if layer.rows else "",
            f"{100 * layer.after:.2f} %" if layer.rows else "",
            layer.reason,
        )
        for layer in report.layers
    ]
    title = f"compensated on {report.images} images, {report.seconds:.1f} s"
    tables.show(title, ("layer", "inputs", "error before", "after", "left as it was"), rows)


def _folder(folder: Path, model: str, size: tuple[int, ...]) -> Iterator[torch.Tensor]:
    """Yield batches of the images in `folder` and the folders in it."""
    try:
        from PIL import Image

        transform = _transform(model, size)
    except ModuleNotFoundError as error:
        raise UserError('--calibrate: a folder of images needs pip install "reprune[vision]"') from error
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _KINDS)
    if len(files) < 2:
        raise UserError(f"--calibrate: expected a folder with images; {folder} has {len(files)}")
    files = files if len(files) <= COUNT else [files[len(files) * k // COUNT] for k in range(COUNT)]
    for start in range(0, len(files), _BATCH):
        batch = []
        for file in files[start : start + _BATCH]:
            try:
                with Image.open(file) as image:
                    batch.append(transform(image.convert("L" if size[0] == 1 else "RGB")))
            except Exception as error:  # of any kind that a damaged file, or a huge one, leads to
                raise UserError(f"--calibrate: {file} is no image that can be read ({error})") from error
        yield torch.stack(batch)


def _transform(model: str, size: tuple[int, ...]) -> Any:
    """Return what torchvision or timm does to the images of its own networks, or the like for others."""
    from torchvision import models, transforms

    if len(size) != 3 or size[0] not in (1, 3):
        raise UserError(f"--calibrate: a folder gives images of 1 or 3 channels; the network takes {size}")
    if model.startswith(from_timm.PREFIX):
        return from_timm.transform(model, size)
    if ":" not in model:
        usual = models.get_model_weights(model).DEFAULT.transforms()
        if getattr(usual, "crop_size", None) == [size[1]] and size[1] == size[2]:
            return usual
    normal = transforms.Normalize(_MEAN, _STD) if size[0] == 3 else transforms.Normalize(0.5, 0.5)
    larger = [round(8 / 7 * side) for side in size[1:]]
    return transforms.Compose(
        [
            transforms.Resize(max(larger)),
            transforms.CenterCrop(size[1:]),
            transforms.ToTensor(),
            normal,
        ]
    )
