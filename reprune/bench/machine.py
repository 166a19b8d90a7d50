"""Describe the machine of a measurement, without names of hosts, users or paths."""

import os
import platform
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..clustering import backends

PACKAGES = ("reprune", "numpy", "torch", "scipy", "fastcluster", "scikit-learn", "torchvision", "triton")


def facts() -> dict[str, str]:
    """Return processor, instruction set, backends with reasons, versions and date."""
    found = {
        "processor": f"{processor()}, {cores()} cores available",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "date": date.today().isoformat(),
    }
    for name in backends.NAMES:
        found[f"backend {name}"] = backends.unavailable(name) or "available"
    if backends.unavailable("cpp") is None:
        core = backends.core()
        found["backend cpp"] = (
            f"available: instruction set {core.isa()}, {backends.num_threads()} threads by default, "
            f"CUDA {'built in' if core.has_cuda else 'not built in'}"
        )
    if backends.unavailable("triton") is None:
        found["backend triton"] = f"available: {gpu()}"
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def processor() -> str:
    """Return the model name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def gpu() -> str:
    """Return the name of the GPU that the backend "triton" runs on."""
    if backends.interpreted():
        return "Triton's interpreter, no GPU"
    properties = torch.cuda.get_device_properties()
    return (
        f"{properties.name}, compute capability {properties.major}.{properties.minor}, "
        f"{properties.multi_processor_count} multiprocessors"
    )


def cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
