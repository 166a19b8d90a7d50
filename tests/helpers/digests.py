"""What must not change: everything in models, optimizers, pruners and random generators, as a digest."""

import hashlib
import random

import numpy as np
import torch
from torch import nn

import reprune


def digest(*things):
    """Of the values, the objects that hold them, and what else is in these."""
    found = hashlib.sha256()
    for thing in things:
        if isinstance(thing, nn.Module):
            _add_model(found, thing)
        elif isinstance(thing, torch.optim.Optimizer):
            _add_optimizer(found, thing)
        elif isinstance(thing, reprune.Pruner):
            _add_value(found, thing.state_dict())
            _add_value(found, [thing.epoch, thing.finished, str(thing.history)])
        elif isinstance(thing, torch.Generator):
            _add_value(found, thing.get_state())
        else:
            _add_value(found, vars(thing))
    _add_value(found, [torch.get_rng_state(), random.getstate(), np.random.get_state()])  # noqa: NPY002
    return found.hexdigest()


def _add_model(found, model):
    for name, module in model.named_modules():
        hooks = len(module._forward_hooks) + len(module._forward_pre_hooks)
        found.update(f"{name} {id(module)} {module.extra_repr()} {module.training} {hooks}".encode())
        found.update(repr(sorted(vars(module))).encode())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        found.update(f"{name} {id(tensor)} {tensor.requires_grad} {tensor.stride()}".encode())
        _add_value(found, [tensor, tensor.grad])


def _add_optimizer(found, optimizer):
    for group in optimizer.param_groups:
        found.update(repr([id(p) for p in group["params"]]).encode())
        _add_value(found, {name: value for name, value in group.items() if name != "params"})
    for parameter, state in optimizer.state.items():
        found.update(str(id(parameter)).encode())
        _add_value(found, state)
    found.update(str(len(optimizer._optimizer_step_post_hooks)).encode())


def _add_value(found, value):
    if isinstance(value, torch.Tensor):
        found.update(f"{value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key, item in value.items():
            found.update(repr(key).encode())
            _add_value(found, item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _add_value(found, item)
    elif isinstance(value, np.ndarray):
        found.update(value.tobytes())
    elif isinstance(value, (int, float, str, type(None))):
        found.update(repr(value).encode())
    else:
        found.update(str(id(value)).encode())
