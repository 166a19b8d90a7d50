"""List the backends, why one is unavailable, and which one `"auto"` selects.

=============  =============================================================================
`reference`  plain numpy in float64; slow, for checking the others
`cpp`        the C++ core, on the CPU, on `REPRUNE_NUM_THREADS` threads (default: all cores)
`triton` Triton and CUDA kernels on an NVIDIA GPU of compute capability 8.0 (A100) or newer
=============  =============================================================================

A named backend never falls back: it works or raises :class:`BackendUnavailable`. `"auto"` depends on the
device of the data, unless `REPRUNE_BACKEND` names the backend to use instead. Under Triton's interpreter
(`TRITON_INTERPRET=1`) the backend `triton` runs without a GPU, on tensors of the CPU: slow, for tests.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from .protocol import Backend

MODULES = {
    "reference": "reprune.clustering.backends.plain",
    "cpp": "reprune.clustering.backends.cpp",
    "triton": "reprune.clustering.backends.triton",
}
"""{name: the module that has the functions of :class:`reprune.clustering.backends.protocol.Backend`}."""
NAMES = tuple(MODULES)
CHOICES = ("auto", *NAMES)
OLDEST_TRITON = (3, 6)
"""Older ones were not tried on a GPU; the compiler of 3.4 crashes on these kernels."""

_HERE = Path(__file__).resolve().parents[2]  # where the package reprune lies


class BackendUnavailable(RuntimeError):  # noqa: N818
    """Raised when the requested backend cannot run here; the message gives the reason."""


def core() -> ModuleType:
    """Return the C++ extension."""
    loaded = sys.modules.get("reprune._core")
    if loaded is not None:
        return loaded
    try:
        built = importlib.import_module("reprune._core")
    except ImportError as error:
        raise BackendUnavailable(f"backend 'cpp': {_why_no_core(error)}") from error
    expected = installed_version()
    if built.__version__ != expected:  # of another installation, or left over from one
        sys.modules.pop("reprune._core", None)
        raise BackendUnavailable(
            f"backend 'cpp': {built.__file__} is the core of reprune {built.__version__}, and this is "
            f"reprune {expected}; install reprune again"
        )
    return built


def installed_version() -> str:
    """Return the version of the installed reprune distribution, which may be another one than this.

    Raises ImportError if none is installed: then this is the source folder.
    """
    try:
        return distribution("reprune").version
    except PackageNotFoundError as error:
        raise ImportError(f"reprune is not installed; {_to_install()}") from error


def _why_no_core(error: ImportError) -> str:
    if not isinstance(error, ModuleNotFoundError):
        return f"the C++ core reprune._core cannot be loaded ({error}); {_to_install()}"
    installed = Path(str(distribution("reprune").locate_file("reprune"))).resolve()
    if installed != _HERE and (installed / "__init__.py").is_file():
        return (
            f"Python took reprune from the source folder {_HERE.parent}, where there is no compiled core, "
            f"instead of the one that is installed in {installed.parent}; start Python in another folder, or "
            "as 'python -P' (3.11 or newer), or run 'pip install -e .' in the source folder"
        )
    return f"the C++ core reprune._core is not built; {_to_install()}"


def _to_install() -> str:
    source = (_HERE.parent / "pyproject.toml").is_file()
    folder = _HERE.parent if source else "the source folder of reprune"
    return f"run 'pip install -e .' in {folder}, with a C++17 compiler at hand"


def unavailable(name: str) -> str | None:
    """Return why backend `name` cannot run here, or None if it can."""
    if name == "cpp":
        try:
            core()
        except BackendUnavailable as error:
            return str(error).removeprefix("backend 'cpp': ")
    return _no_triton() if name == "triton" else None


def interpreted() -> bool:
    """Return whether Triton's kernels run in its interpreter, on CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def _no_triton() -> str | None:
    reason = unavailable("cpp")  # which it needs, too
    if reason is not None:
        return reason
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed; run 'pip install triton'"
    if (version := _triton_version()) < OLDEST_TRITON:
        return (
            f"expected Triton {'.'.join(map(str, OLDEST_TRITON))} or newer, which torch 2.10 brings; got "
            f"{'.'.join(map(str, version))}"
        )
    if interpreted():
        return None
    import torch

    if not torch.cuda.is_available():
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        return f"no GPU: torch.cuda.is_available() is False (torch {torch.__version__}, built for {built})"
    if not core().has_cuda:
        return (
            "the C++ core was built without CUDA; install nvcc and run 'pip install -e . "
            "-C cmake.define.REPRUNE_CUDA=ON' in the source folder"
        )
    capability = torch.cuda.get_device_capability()
    if capability < (8, 0):
        return f"expected a GPU of compute capability 8.0 or newer; got {capability[0]}.{capability[1]}"
    error = core().cuda_error()
    return f"the CUDA part of the C++ core cannot run on this GPU: {error}" if error else None


def resolve(backend: str, device: str = "cpu", on_gpu: bool = True) -> str:
    """Return the name of the backend to run.

    That is `backend`, or for `"auto"` the one for data on `device` ("cpu", "cuda", ...). `on_gpu`: the
    backend "triton" can do it; where it cannot, `"auto"` means "cpp".

    Raises ValueError for an unknown name, BackendUnavailable where the backend cannot run.
    """
    name = _known(backend, "backend")
    if name == "auto":
        name = _known(os.environ.get("REPRUNE_BACKEND", "auto"), "environment variable REPRUNE_BACKEND")
    if name == "auto":
        gpu = on_gpu and device == "cuda" and unavailable("triton") is None
        name = "triton" if gpu else "cpp"
    reason = unavailable(name)
    if reason is not None:
        raise BackendUnavailable(f"backend {name!r}: {reason}")
    return name


def module(name: str) -> Backend:
    """Return the functions of the backend `name`, which :func:`resolve` returned."""
    loaded = sys.modules.get(MODULES[name])  # as importing takes as long as clustering a few points
    return cast("Backend", loaded or importlib.import_module(MODULES[name]))


def _known(name: str, what: str) -> str:
    if not isinstance(name, str) or name not in CHOICES:
        raise ValueError(
            f"{what}: expected one of {', '.join(CHOICES)}; got {' '.join(repr(name).split())[:80]}"
        )
    return name


def _triton_version() -> tuple[int, ...]:
    """Return the first two numbers of Triton's version; those of a build by another name are not known."""
    try:
        return tuple(int(part) for part in distribution("triton").version.split(".")[:2])
    except PackageNotFoundError:
        return OLDEST_TRITON


def num_threads() -> int:
    """Return the number of threads of the C++ core.

    It is `REPRUNE_NUM_THREADS`, or the number of cores that this process may use.
    """
    given = os.environ.get("REPRUNE_NUM_THREADS")
    if given is None:
        affinity = getattr(os, "sched_getaffinity", None)
        return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    if not given.isdecimal() or int(given) < 1:
        raise ValueError(
            f"environment variable REPRUNE_NUM_THREADS: expected a positive integer; got {given!r}"
        )
    return int(given)
