"""Build the network that MODEL names, and an input that fits it."""

import contextlib
import importlib
import os
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from ..arguments import similar
from ..graph.traced import as_example
from ..modules.slicing import named_tensors, sliced_copy
from . import from_timm, from_transformers
from .errors import UserError

CLIP = (3, 16, 112, 112)
INPUT_SIZES = (  # how the names of torchvision begin -> input without the batch; the first that fits counts
    ("inception_v3", (3, 299, 299)),
    ("r3d_", CLIP),
    ("mc3_", CLIP),
    ("r2plus1d_", CLIP),
    ("s3d", (3, 16, 224, 224)),
    ("mvit_", (3, 16, 224, 224)),
    ("swin3d_", (3, 16, 224, 224)),
    ("", (3, 224, 224)),
)


def build(name: str, seed: int, empty: bool = False) -> nn.Module:
    """Build the network `name`, of torchvision, timm, transformers or a function.

    `name` is torchvision's, timm's after `timm/`, the folder in which transformers saved a network with its
    weights, or `package.module:function`. The function is called without arguments. Networks by name come
    with random weights, drawn from `seed`.
    With `empty` the parameters are on the device "meta" instead, without values: a network larger than the
    memory can be built so, and faster.
    """
    torch.manual_seed(seed)
    with _without_parameters() if empty else contextlib.nullcontext():
        if ":" in name:
            return _from_function(name)
        if from_transformers.is_folder(name):
            return from_transformers.build(name, empty)
        return from_timm.build(name) if name.startswith(from_timm.PREFIX) else _from_torchvision(name)


@contextlib.contextmanager
def _without_parameters() -> Iterator[None]:
    """Let modules that are made inside the block have parameters without values; tied ones stay tied."""
    known: dict[int, tuple[weakref.ref[nn.Parameter], nn.Parameter]] = {}

    def emptied(module: nn.Module, name: str, parameter: nn.Parameter | None) -> nn.Parameter | None:
        if type(parameter) is not nn.Parameter or parameter.is_meta:
            return None  # as it is
        seen = known.get(id(parameter))
        if seen is None or seen[0]() is not parameter:
            new = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
            seen = known[id(parameter)] = weakref.ref(parameter), new
        return seen[1]

    # its annotation denies the result that its documentation allows
    handle = nn.modules.module.register_module_parameter_registration_hook(emptied)  # type: ignore[arg-type]
    try:
        yield
    finally:
        handle.remove()


def source(name: str) -> Path | None:
    """Return the file that :func:`build` imported for `name`, if it is the user's Python code."""
    module = sys.modules.get(name.partition(":")[0]) if ":" in name else None
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file)


def example(
    name: str, size: tuple[int, ...] | None, batch: int = 1, model: nn.Module | None = None
) -> torch.Tensor | dict[str, Any]:
    """Return a random batch of inputs for the network called `name`; one of transformers is asked itself."""
    if model is not None and from_transformers.is_folder(name):
        return from_transformers.inputs(name, model, size, batch)
    if size is None and name.startswith(from_timm.PREFIX):
        size = from_timm.input_size(name)
    if size is None:
        size = next(size for start, size in INPUT_SIZES if name.startswith(start))
    return torch.randn(batch, *size)


def inputs_from(function: str) -> Any:
    """Return what the user's `package.module:function` gives for one pass: a tensor, a tuple or a dict."""
    if ":" not in function:
        raise UserError(f"--inputs: expected package.module:function; got {function!r}")
    inputs = _made(function)
    if not isinstance(inputs, (torch.Tensor, tuple, list, dict)):
        raise UserError(
            f"--inputs: {function} must return a tensor, a tuple of arguments or a dictionary of keyword "
            f"arguments; it returned a {type(inputs).__name__}"
        )
    return inputs


LARGE_BYTES = 2**28
"""Size of tensors from which a network is not run for a mere check, if its shapes show that it runs."""


def check_input(model: nn.Module, inputs: Any, function: str | None = None) -> None:
    """Run the network once; raises `UserError` if it does not take `inputs`, which `function` returned."""
    example = as_example(inputs)
    if sum(tensor.nbytes for tensor in named_tensors(model).values()) >= LARGE_BYTES:
        with contextlib.suppress(Exception), torch.inference_mode():
            args, kwargs = tree_map(lambda x: x.to("meta") if isinstance(x, torch.Tensor) else x, example)
            sliced_copy(model, {}, {}, meta=True).eval()(*args, **kwargs)
            return
    training = model.training
    try:
        with torch.inference_mode():
            model.eval()(*example[0], **example[1])
    except Exception as error:
        if function is not None:
            raise UserError(
                f"the network does not take what {function} returned ({_described(error)})"
            ) from error
        if isinstance(inputs, dict):
            raise UserError(
                f"the network does not take {' and '.join(inputs)} ({_first_line(error)}); give its own "
                "inputs with --inputs"
            ) from error
        size = ",".join(str(n) for n in inputs.shape[1:])
        raise UserError(
            f"the network does not take an input of size {size} ({_first_line(error)}); "
            "give its own with --input-size, or others than images with --inputs"
        ) from error
    finally:
        model.train(training)


def _from_torchvision(name: str) -> nn.Module:
    try:
        from torchvision import models
    except ModuleNotFoundError as error:
        raise UserError(
            f'{name!r} is looked up in torchvision, which is missing: pip install "reprune[vision]"'
        ) from error
    names = models.list_models()
    if name not in names and Path(name).is_dir():
        raise UserError(f"the folder {name!r} has no config.json; save_pretrained of transformers writes one")
    if name not in names:
        close = similar(name, names)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise UserError(
            f"torchvision has no model {name!r}{hint} "
            "(timm's are written timm/NAME, a network of your own package.module:function)"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about init_weights, of googlenet and inception_v3
        model = models.get_model(name, weights=None, **_no_download(name))
    assert isinstance(model, nn.Module)
    return model


def _no_download(name: str) -> dict[str, None]:
    """Return arguments that keep detection and segmentation models from fetching a trained backbone."""
    from inspect import signature

    from torchvision import models

    parameters = signature(models.get_model_builder(name)).parameters
    return {"weights_backbone": None} if "weights_backbone" in parameters else {}


def _from_function(name: str) -> nn.Module:
    model = _made(name)
    if not isinstance(model, nn.Module):
        raise UserError(f"{name} must return a torch.nn.Module, it returned a {type(model).__name__}")
    return model


def _made(name: str) -> Any:
    """Return what `package.module:function` returns, called without arguments."""
    module_name, _, function_name = name.partition(":")
    with working_folder_importable():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            raise UserError(f"cannot import {error.name!r} of {name!r}: {error}") from error
        except Exception as error:
            raise UserError(f"importing {module_name!r} failed: {_described(error)}") from error
        function = getattr(module, function_name, None)
        if not callable(function):
            raise UserError(f"{module_name!r} has no function {function_name!r}")
        return called(function, name)


def called(function: Callable[[], Any], name: str) -> Any:
    """Return what the user's function returns; raises `UserError` if it fails."""
    try:
        return function()
    except Exception as error:
        raise UserError(f"calling {name} failed: {_described(error)}") from error


@contextlib.contextmanager
def working_folder_importable() -> Iterator[None]:
    """Make the working folder importable, as `python -m` does, inside the block."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
