"""Run kernels on a second stream beside those of the current one."""

from __future__ import annotations

import torch


class Beside:
    """A stream of the device for few, long blocks, beside launches of many.

    Within `with Beside(device) as beside:`, what is launched on `beside.handle` runs after all that was
    started on the current stream before the last :meth:`follow`. Its blocks come first where both streams
    have some that wait for a multiprocessor. At the end, also after an error, the current stream waits for
    it, so whatever is used there may be freed after the block: memory is given away in the order of the
    current stream. On the CPU there are no streams.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream: torch.cuda.Stream | None = None  # made when it is asked for: it takes the host a while

    @property
    def handle(self) -> int:
        """The stream, as CUDA's functions take it."""
        return 0 if self.device.type == "cpu" else self._own().cuda_stream

    def follow(self) -> None:
        """Let what comes next wait for all that was started on the current stream."""
        if self.device.type != "cpu":
            self._own().wait_stream(torch.cuda.current_stream(self.device))

    def _own(self) -> torch.cuda.Stream:
        if self.stream is None:
            self.stream = torch.cuda.Stream(self.device, priority=-1)  # type: ignore[no-untyped-call]
        return self.stream

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *error: object) -> None:
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
