"""Save and restore the global random number generators: PyTorch's, Python's, numpy's."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def generators() -> dict[str, Any]:
    """Return the states of the generators."""
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002  (the one that data loaders may use)
    }


@contextmanager
def generators_kept() -> Iterator[None]:
    """Put the generators back after the block, also after errors."""
    states = generators()
    try:
        yield
    finally:
        restore(states)


def check(states: Any) -> None:
    """Raise `ValueError` if the states could not be set, by a trial on fresh generators."""
    try:
        torch.Generator().set_state(states["torch"])
        for state in states["cuda"][: torch.cuda.device_count()]:
            torch.Generator("cuda").set_state(state)
        random.Random().setstate(states["python"])
        numpy = states["numpy"]  # a tuple in files of earlier versions
        if (numpy[2] if isinstance(numpy, tuple) else numpy["state"].get("pos", 0)) not in range(625):
            raise ValueError("numpy's position")  # which numpy does not look at, and reads from there
        kind = type(np.random.mtrand.get_bit_generator())
        np.random.RandomState(kind()).set_state(states["numpy"])
    except Exception as error:
        raise ValueError(f"the state of a random number generator is wrong ({error})") from None


def restore(states: dict[str, Any]) -> None:
    """Set the states, of GPUs those that exist here."""
    torch.set_rng_state(states["torch"])
    for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])  # noqa: NPY002
