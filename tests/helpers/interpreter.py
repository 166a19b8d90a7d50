"""Triton's interpreter without what takes most of its time: checks of integers for overflow, and Triton's
language patched again at every call of one of our functions by another."""

import dataclasses

from triton.runtime.interpreter import InterpretedFunction, interpreter_builder

call = InterpretedFunction.__call__


def called(self, *args, **kwargs):
    if self.fn.__module__.startswith("reprune."):
        return self.rewrite()(*args, **kwargs)
    return call(self, *args, **kwargs)


def be_fast():
    """From here on, in this process."""
    options = dataclasses.replace(interpreter_builder.options, sanitize_overflow=False)
    interpreter_builder.options = options
    InterpretedFunction.__call__ = called
