"""Code that torch.compile made for shapes which an event has changed.

Every event makes the model compile anew, and after `recompile_limit` (8) versions of a function dynamo gives
up and runs it uncompiled for good.  So what an event has made stale is dropped, and events do not count.
"""

from __future__ import annotations

import warnings

from torch import nn


class CompiledCode:
    """The compiled versions of all functions of the process, looked at once per event.

    A version does not tell which model it is of.  A function that has more versions than at the last event
    compiled again in between, so it is one that events change: its versions are dropped.  At the first look
    that is not known yet, and only those are dropped of which another round would come up to the limit.
    """

    def __init__(self, model: nn.Module, events: int) -> None:
        self._seen: dict[int, int] = {}
        if _is_compiled(model) and _dynamo() is None:
            warnings.warn(
                "model: this version of PyTorch does not let compiled code be dropped, so after several events "
                "training would go on uncompiled; set torch._dynamo.config.recompile_limit to "
                f"{events + 8} or more",
                stacklevel=3,
            )

    def drop_stale(self) -> None:
        """Call after an event: the model has other shapes now."""
        dynamo = _dynamo()
        if dynamo is None:
            return
        for code in _codes(dynamo):
            versions = len(dynamo.eval_frame._debug_get_cache_entry_list(code))
            before = self._seen.get(id(code))
            if versions > before if before is not None else 2 * versions > dynamo.config.recompile_limit:
                dynamo.eval_frame.reset_code(code)
                versions = 0
            self._seen[id(code)] = versions
