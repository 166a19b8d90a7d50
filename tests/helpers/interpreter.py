"""Triton's interpreter without what takes most of its time: checks of integers for overflow, Triton's
language patched again at every call of one function by another, and a table made for every number's type."""

import dataclasses

import numpy as np
from triton import language
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpretedFunction, interpreter_builder

call, type_of = InterpretedFunction.__call__, interpreter._get_np_dtype
patched = set()
types = {}


def called(self, *args, **kwargs):
    """Our kernels find the language patched by their launch, Triton's own functions by their first call."""
    module = self.fn.__module__
    if module.startswith("reprune.") or module in patched:
        return self.rewrite()(*args, **kwargs)
    patched.add(module)
    return call(self, *args, **kwargs)


def numpy_type(of: language.dtype) -> np.dtype:
    """What `_get_np_dtype` says of a type, asked once for all blocks of it."""
    if isinstance(of, language.block_type):
        of = of.element_ty
    if of.name not in types:
        types[of.name] = type_of(of)
    return types[of.name]


def be_fast():
    """From here on, in this process."""
    options = dataclasses.replace(interpreter_builder.options, sanitize_overflow=False)
    interpreter_builder.options = options
    InterpretedFunction.__call__ = called
    interpreter._get_np_dtype = numpy_type
