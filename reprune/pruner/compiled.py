"""Drop code that torch.compile made for shapes which an event has changed.

Every event makes the model compile anew, and at `recompile_limit` (8) versions of a function dynamo gives up
and runs it uncompiled for good. So code that an event has made stale is dropped, and events do not count
towards the limit.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

from torch import nn

from ..modules.wrappers import inside


class CompiledCode:
    """The compiled versions of all functions of the process, looked up once per event.

    A version does not show which model it belongs to. A function with more versions than at the last event
    was compiled again in between, so events change it, and its versions are dropped. At the first event this
    is not known yet, and only functions that would reach the limit by the next are dropped.
    """

    def __init__(self, model: nn.Module) -> None:
        self._seen: dict[int, int] = {}
        if _is_compiled(model) and _dynamo() is None:
            warnings.warn(
                "model: this version of PyTorch does not let compiled code be dropped, so after some events "
                "it would run uncompiled; set torch._dynamo.config.recompile_limit to their number + 8",
                stacklevel=3,
            )

    def drop_stale(self) -> None:
        """Drop compiled code of outdated shapes, after an event."""
        dynamo = _dynamo()
        if dynamo is None:
            return
        frames, config = dynamo.eval_frame, dynamo.config
        limit = config.recompile_limit if hasattr(config, "recompile_limit") else config.cache_size_limit
        for code in [reference() for reference in dynamo.convert_frame.input_codes.seen]:
            if code is None:
                continue
            versions = len(frames._debug_get_cache_entry_list(code))
            before = self._seen.get(id(code))
            if 2 * versions > limit if before is None else versions > before:
                frames.reset_code(code)
                versions = 0
            self._seen[id(code)] = versions


def _is_compiled(model: nn.Module) -> bool:
    return any(
        inside(module) == "_orig_mod" or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )


def _dynamo() -> Any:
    """Return torch._dynamo where something was compiled and its code can be dropped, else None."""
    dynamo: Any = sys.modules.get("torch._dynamo")
    try:
        dynamo.convert_frame.input_codes.seen, dynamo.eval_frame.reset_code  # noqa: B018  (are they there?)
        dynamo.eval_frame._debug_get_cache_entry_list  # noqa: B018
    except AttributeError:
        return None
    return dynamo
