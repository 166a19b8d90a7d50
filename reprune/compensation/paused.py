"""Run a forward pass in a thread that stops before each intercepted operation.

Threads are used as coroutines: whoever asks for the next operation waits for it, so one runs at a time.
"""

from __future__ import annotations

import contextvars
import threading
from contextlib import nullcontext
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor, nn

from .calls import Call
from .modes import Intercepting

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments of a network."""


class _Stopped(BaseException):
    """Ends the pass from within."""


class PausedPass:
    """A forward pass of `model` on `inputs`.

    :meth:`next` runs it up to its next intercepted operation, which waits until :meth:`answer` is given its
    output. :meth:`close` has to be called in any case.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, device: torch.device) -> None:
        self._told: SimpleQueue[Call | BaseException | None] = SimpleQueue()
        self._answers: SimpleQueue[Tensor | None] = SimpleQueue()
        self._stopped = False
        # a thread has its own stream, and device: those of who asks
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run, model, inputs), daemon=True)
        self._thread.start()

    def next(self) -> Call | None:
        """Return the next operation, or None at the end; raise what the network raises."""
        told = self._told.get()
        if isinstance(told, BaseException):
            raise told
        return told

    def answer(self, output: Tensor) -> None:
        """Let the pass go on with the output of its operation."""
        self._answers.put(output)

    def close(self) -> None:
        """End the pass wherever it is, and its thread."""
        self._stopped = True
        self._answers.put(None)
        self._thread.join()

    def _run(self, model: nn.Module, inputs: Inputs) -> None:
        try:
            args, kwargs = inputs
            stream = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
            with stream, torch.no_grad(), Intercepting(model, self._ask):
                model(*args, **kwargs)
        except _Stopped:
            return
        except BaseException as error:  # it is the conductor's to raise
            self._told.put(error)
        else:
            self._told.put(None)

    def _ask(self, call: Call) -> Tensor:
        if not self._stopped:
            self._told.put(call)
            output = self._answers.get()
            if output is not None and not self._stopped:
                return output
        raise _Stopped
