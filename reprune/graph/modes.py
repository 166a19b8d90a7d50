"""Find out whether a network does the same in training mode as in evaluation mode."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import torch
from torch import nn

from ..modules.attention import AttentionOfFewerHeads
from ..modules.held import modules_of

_asked: ContextVar[dict[int, nn.Module] | None] = ContextVar("asked", default=None)
_lock = threading.Lock()
_watchers = 0


def _read(module: nn.Module) -> Any:
    asked = _asked.get()
    if asked is not None:
        asked[id(module)] = module
    try:
        return module.__dict__["training"]
    except KeyError:
        return module.__getattr__("training")


def _write(module: nn.Module, training: bool) -> None:
    module.__dict__["training"] = training


@contextlib.contextmanager
def asking_for_mode() -> Iterator[dict[int, nn.Module]]:
    """Yield the modules, by id, whose attribute `training` is read in between, in this context.

    For that time the attribute is a property of all modules, which gives what it gave before.
    """
    global _watchers
    asked: dict[int, nn.Module] = {}
    token = _asked.set(asked)
    with _lock:
        if _watchers == 0:
            nn.Module.training = property(_read, _write)  # type: ignore[assignment]
        _watchers += 1
    try:
        yield asked
    finally:
        _asked.reset(token)
        with _lock:
            _watchers -= 1
            if _watchers == 0:
                del nn.Module.training


def trains_alike(model: nn.Module, asked: Iterable[nn.Module]) -> bool:
    """Return whether `model` does the same in training mode, but for values.

    `asked` are the modules that read in which mode they are. Batch norms do not count: a trace keeps them in
    evaluation mode.
    """
    return all(map(_is_alike, asked)) and not any(map(_hides_its_mode, modules_of(model)))


_DROPOUTS = frozenset(
    kind.forward
    for kind in (
        nn.Dropout,
        nn.Dropout1d,
        nn.Dropout2d,
        nn.Dropout3d,
        nn.AlphaDropout,
        nn.FeatureAlphaDropout,
    )
)
_DROPPED_PATHS = {("torchvision.ops.stochastic_depth", "StochasticDepth"), ("timm.layers.drop", "DropPath")}


def _is_alike(module: nn.Module) -> bool:
    kind = type(module)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return True
    if kind.forward in (nn.MultiheadAttention.forward, AttentionOfFewerHeads.forward):
        return bool(module.dropout == 0)
    return kind.forward in _DROPOUTS or (kind.__module__, kind.__qualname__) in _DROPPED_PATHS


def _hides_its_mode(module: nn.Module) -> bool:
    """Return whether `module` may know its mode by another way than its attribute."""
    kind = type(module)
    own = kind.train is not nn.Module.train or kind.eval is not nn.Module.eval
    return own or isinstance(module, torch.jit.ScriptModule)
