"""CUDA without a GPU, so that what a process does for one can be timed on any machine.

Two libraries take the place of CUDA's runtime and driver (runtime.c, driver.c): memory is the host's, and
launches and copies on the device are counted and do nothing. So torch, Triton's launcher and our code run as
on an H100, and nothing is computed: results are what happened to be in memory.
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import torch

HERE = Path(__file__).parent
LOGGED = 4096  # launches that driver.c remembers
CALLS = ("launches", "copies to the device", "copies from it", "copies on it")
CALLS += ("waits of the host", "waits of streams", "allocations")


def build(folder: Path) -> dict[str, str]:
    """Compile both libraries into a folder; return the environment of a process that is to use them.

    Raises FileNotFoundError where nvcc, nm or a torch for CUDA 13 is missing.
    """
    if shutil.which("nvcc") is None or shutil.which("nm") is None:
        raise FileNotFoundError("nvcc of CUDA 13 and nm are needed")
    if not (torch.version.cuda or "").startswith("13."):
        raise FileNotFoundError(f"expected a torch built for CUDA 13; got one for {torch.version.cuda}")
    libraries = {
        "runtime": ("libcudart.so.13", needed("@libcudart.so.13")),
        "driver": ("libcuda.so.1", set(ASKED)),
    }
    for source, (name, names) in libraries.items():
        written = (HERE / f"{source}.c").read_text()
        rest = sorted(one for one in names if f" {one}(" not in written)
        (folder / f"{source}_rest.c").write_text("".join(f"int {one}() {{ return 0; }}\n" for one in rest))
        version = folder / f"{source}.map"
        version.write_text(f"{name} {{ global: *; }};")
        command = ["nvcc", "-O1", "-shared", "-cudart=none", "-Xcompiler=-fPIC", "-Xcompiler=-w"]
        command += [str(HERE / f"{source}.c"), str(folder / f"{source}_rest.c")]
        command += [f"-Xlinker=-soname={name}", "-ldl", "-o", str(folder / name)]
        if source == "runtime":
            command.append(f"-Xlinker=--version-script={version}")
        subprocess.run(command, check=True)
    (folder / "libcuda.so").symlink_to("libcuda.so.1")
    both = ":".join(str(folder / name) for name, _ in libraries.values())
    return {**os.environ, "LD_PRELOAD": both, "TRITON_LIBCUDA_PATH": str(folder)}


def needed(version: str) -> set[str]:
    """Functions of CUDA's runtime that the libraries of torch, torchvision and NVIDIA ask for."""
    packages = Path(torch.__file__).parents[1]
    found = set()
    libraries = [packages / folder for folder in ("torch/lib", "torchvision", "nvidia")]
    for path in [path for folder in libraries for path in folder.rglob("*.so*")]:
        run = subprocess.run(["nm", "-D", "--undefined-only", str(path)], capture_output=True, text=True)
        words = run.stdout.split()
        found |= {word.partition("@")[0] for word in words if word.endswith(version)}
    return found


ASKED = (
    *(
        "cuInit",
        "cuCtxSetCurrent",
        "cuCtxPushCurrent_v2",
        "cuCtxPopCurrent_v2",
        "cuCtxGetLimit",
        "cuCtxSetLimit",
    ),
    *("cuFuncSetAttribute", "cuFuncSetCacheConfig", "cuModuleUnload", "cuOccupancyMaxActiveClusters"),
    *("cuTensorMapEncodeTiled", "cuTensorMapEncodeIm2col", "cuMemGetAddressRange_v2", "cuMemGetAddressRange"),
    *(
        "cuMemcpyHtoDAsync_v2",
        "cuModuleLoadDataEx",
        "cuLaunchKernel",
        "cuModuleGetGlobal_v2",
        "cuDeviceGetName",
    ),
)
"""Functions of the driver that do nothing, besides those in driver.c."""


def counted() -> dict[str, int]:
    """What this process called so far, by :data:`CALLS`; launches of Triton are those of the driver."""
    runtime, driver = ctypes.CDLL("libcudart.so.13"), ctypes.CDLL("libcuda.so.1")
    calls = (ctypes.c_long * len(CALLS)).in_dll(runtime, "no_gpu_calls")
    launches = ctypes.c_long.in_dll(driver, "no_gpu_driver_launches").value
    return {**dict(zip(CALLS, calls, strict=True)), "launches by Triton": launches}


def launched(since: int) -> list[tuple[str, float]]:
    """Triton's launches but for the first `since`, at most :data:`LOGGED`: kernel, CPU time of the thread."""
    driver = ctypes.CDLL("libcuda.so.1")
    at = (ctypes.c_double * LOGGED).in_dll(driver, "no_gpu_launched_at")
    names = (ctypes.c_char_p * LOGGED).in_dll(driver, "no_gpu_launched_kernel")
    end = ctypes.c_long.in_dll(driver, "no_gpu_driver_launches").value
    return [(names[k % LOGGED].decode(), at[k % LOGGED]) for k in range(since, end)]
