"""Triton's interpreter without what takes most of its time: checks of integers for overflow, and Triton's
language patched again at every call of one of our functions by another."""

import dataclasses

from triton.runtime.interpreter import InterpretedFunction, interpreter_builder

interpreter_builder.options = dataclasses.replace(interpreter_builder.options, sanitize_overflow=False)
call = InterpretedFunction.__call__


def called(self, *args, **kwargs):
    if self.fn.__module__.startswith("reprune."):
        return self.rewrite()(*args, **kwargs)
    return call(self, *args, **kwargs)


InterpretedFunction.__call__ = called
