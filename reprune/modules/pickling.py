"""Pickle modules whose classes are made as they are needed, by the classes that they have when whole."""

from __future__ import annotations

import copyreg
from collections.abc import Callable
from typing import Any


def by_whole_class(reduced: Any, new: Callable[..., Any], whole: type) -> Any:
    """Return what `object.__reduce_ex__` has `reduced` a module to, made anew by `new(whole, ...)`.

    Its state is what the module's own class says. So is all else, where that says how it is made.
    """
    made, arguments, *rest = reduced
    if made is copyreg.__newobj__:  # type: ignore[attr-defined]  # which copyreg's stub lacks
        made, arguments = new, (whole, *arguments[1:])
    return made, arguments, *rest
