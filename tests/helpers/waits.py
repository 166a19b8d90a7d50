"""What would make the host wait for a GPU: calls on tensors, told by the code that makes them."""

import sys

import torch
from torch.overrides import TorchFunctionMode

READS = {"cpu", "numpy", "item", "tolist", "__bool__", "__int__", "__float__", "__index__", "__array__"}
READS |= {"nonzero", "argwhere", "masked_select", "unique", "equal", "is_nonzero", "repeat_interleave"}


class Waits(TorchFunctionMode):
    """Between `go` and `stop`: `file:function` of every wait, were all tensors on a GPU but those that
    come from numpy or were brought, and what is computed of these."""

    def __init__(self):
        super().__init__()
        self.found, self.counting = [], False
        self.host = []  # kept alive, so that no other tensor has their id

    def go(self, value=None):
        self.counting = True
        return value

    def stop(self):
        self.counting = False

    def __enter__(self):
        self.from_numpy = torch.from_numpy  # no mode is told of it
        torch.from_numpy = lambda array: self.on_host(self.from_numpy(array))
        return super().__enter__()

    def __exit__(self, *error):
        torch.from_numpy = self.from_numpy
        return super().__exit__(*error)

    def on_host(self, tensor):
        self.host.append(tensor)
        return tensor

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        frame = sys._getframe(1)
        if not self.counting or within_triton(frame):
            return result
        tensors = [x for x in args if isinstance(x, torch.Tensor)]
        host = bool(tensors) and all(any(x is known for known in self.host) for x in tensors)
        target = kwargs.get("device", args[1] if len(args) > 1 else None)
        down = func.__name__ == "cpu" or (func.__name__ == "to" and target == "cpu")
        up = func.__name__ == "to" and isinstance(target, str | torch.device) and not down
        # what is on the GPU already, `to` its device gives back as it is
        if (up and host and not kwargs.get("non_blocking", False)) or (
            not host and (down or reads(func, args))
        ):
            name = frame.f_code.co_filename.rpartition("/")[2]
            self.found.append(f"{name}:{frame.f_code.co_name}")
        if isinstance(result, torch.Tensor) and (down or (host and not up)):
            self.on_host(result)
        return result


def reads(func, args):
    if func.__name__ in ("__getitem__", "__setitem__"):  # how many a mask has is counted there and read
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(x, torch.Tensor) and x.dtype == torch.bool for x in index)
    return func.__name__ in READS


def within_triton(frame):
    """Is this the interpreter at work, which stands for the GPU?"""
    while frame is not None:
        if "/triton/" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False
