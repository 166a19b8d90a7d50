"""The instruction sets whose loops this processor can run."""

from reprune import _core


def _found():
    try:
        return [name for name in ("avx512", "avx2", "sse2", "plain") if _core.set_isa(name)]
    finally:
        _core.set_isa("")


ISAS = _found()
