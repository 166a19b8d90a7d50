"""Triton's interpreter without its checks of integers for overflow, which take half of its time."""

import dataclasses

from triton.runtime.interpreter import interpreter_builder

interpreter_builder.options = dataclasses.replace(interpreter_builder.options, sanitize_overflow=False)
