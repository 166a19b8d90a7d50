"""The kernels of the GPU path, compiled without a GPU, and how each is launched."""

import itertools
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from reprune.kernels.cut import height_kernel, label_kernel
from reprune.kernels.launch import cut_shape, ward_shape
from reprune.kernels.ward import ward_kernel

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
CSRC = Path(__file__).parents[2] / "csrc"
NVCC = ("-std=c++17", "-O3", "-fmad=false")  # as CMakeLists.txt says
CHIPS = {"sm_80": (8, 0), "sm_90": (9, 0), "sm_100": (10, 0), "gfx942": (0, 0)}

SIZES = (
    64,
    512,
    2048,
    4096,
)  # points, rounded up to a power of two: of the cut kernels, ward has one for all
KERNEL_SIZES = (1, 4, 9, 25, 49, 128)


@dataclass(frozen=True)
class Binary:
    """One kernel for one target."""

    kernel: str
    assembly: str
    """PTX, or what LLVM writes for AMD."""
    code: bytes
    """A cubin; empty for AMD."""
    shared: int
    """Bytes of dynamic shared memory that Triton asks for."""


@dataclass(frozen=True)
class Variant:
    """A kernel with its constants."""

    name: str
    kernel: object
    """A function of Triton, or the name of one in coverage.cu."""
    threads: int
    """Of a block on NVIDIA."""
    grid: str
    arguments: dict[str, str]
    constants: dict[str, int] = field(default_factory=dict)
    targets: tuple[str, ...] = tuple(TARGETS)
    shared: str = "static only"
    """What a launch asks for."""

    def compile(self, target: str) -> Binary:
        return _cuda(self.kernel, target) if isinstance(self.kernel, str) else _triton(self, target)

    def launch(self, target: str) -> dict[str, object]:
        """How it is launched, but for its name."""
        warps = self.threads // 32
        hidden = [] if isinstance(self.kernel, str) else ["scratch of the compiler, null", "the same, null"]
        return {
            "grid": self.grid,
            "threads": warps * TARGETS[target].warp_size,
            "dynamic shared memory": self.shared,
            "arguments": self.arguments,
            "hidden arguments after them": hidden,
            "constants": self.constants,
        }


def ward_variant(d: int, dtype: torch.dtype, target: str = "sm_90", **changes: int) -> Variant:
    """Ward of float32 points of d coordinates, any number, with a state of `dtype`, as on `target`."""
    real = "*fp32" if dtype == torch.float32 else "*fp64"
    types = {"problems": "*i64", "points": real, "costs": "*fp64", "tops": "*fp64"}
    used = ward_shape(d, dtype, CHIPS[target])
    same = tuple(name for name, chip in CHIPS.items() if ward_shape(d, dtype, chip) == used)
    shape = used | changes
    warps = shape.pop("num_warps")
    constants = {"DOUBLE": False, "D": d, "LINE": d == 1, **shape}
    names = [name for name in ward_kernel.arg_names if name not in constants]
    return Variant(
        f"ward d={d} {str(dtype).removeprefix('torch.')}",
        ward_kernel,
        32 * warps,
        "problems",
        {name: types.get(name, "*i32") for name in names},
        constants,
        tuple(TARGETS) if changes else same,
    )


def cut_variant(kernel: object, n: int) -> Variant:
    """A kernel of kernels/cut.py for up to n points."""
    types = {"tops": "*fp64", "cuts": "*i64", "problems": "*i64"}
    constants = cut_shape(n)
    warps = constants.pop("num_warps")
    names = [name for name in kernel.arg_names if name not in constants]  # type: ignore[attr-defined]
    name = kernel.__name__.removesuffix("_kernel")  # type: ignore[attr-defined]
    return Variant(
        f"{name} n={constants['N']}",
        kernel,
        32 * warps,
        "problems",
        {name: types.get(name, "*i32") for name in names},
        constants,
    )


def triton_variants() -> list[Variant]:
    ward = []
    for dtype, d in itertools.product((torch.float32, torch.float64), KERNEL_SIZES):
        left = tuple(TARGETS)
        while left:
            ward.append(ward_variant(d, dtype, left[0]))
            left = tuple(target for target in left if target not in ward[-1].targets)
    return ward + [cut_variant(kernel, n) for kernel in (height_kernel, label_kernel) for n in SIZES]


def cuda_variants() -> tuple[list[Variant], str]:
    """Those of csrc/gpu/coverage.cu, or none and the reason."""
    if shutil.which("nvcc") is None:
        return [], "no CUDA compiler nvcc"
    layers = {"layers": "const CoverLayer* (csrc/gpu/coverage_layer.hpp)"}
    table = {"table": "SquaresOf (csrc/gpu/cover_layers.hpp), by value", "norms": "double*"}
    most = "4 * (most filters of a layer, rounded up to 4) bytes"
    kernels = (
        ("cover random", "cover_kernelILb0E", 512, "layers", layers, most),
        ("cover norm", "cover_kernelILb1E", 512, "layers", layers, most),
        (
            "cover index",
            "index_kernel",
            128,
            "(32, layers)",
            layers,
            "16 * (most clusters of a channel) bytes",
        ),
        ("squares", "squares_kernel", 64, "filters / 64, rounded up", table, "none"),
    )
    nvidia = tuple(name for name in TARGETS if name.startswith("sm_"))
    return [
        Variant(name, kernel, threads, grid, arguments, targets=nvidia, shared=shared)
        for name, kernel, threads, grid, arguments, shared in kernels
    ], ""


@cache
def _triton_cached(kernel, target, threads, arguments, constants) -> Binary:  # type: ignore[no-untyped-def]
    signature = dict(arguments) | dict.fromkeys(dict(constants), "constexpr")
    source = ASTSource(
        fn=kernel,
        signature={name: signature[name] for name in kernel.arg_names},
        constexprs=dict(constants),
    )
    compiled = triton.compile(source, target=TARGETS[target], options={"num_warps": threads // 32})
    text = compiled.asm["ptx" if target.startswith("sm_") else "amdgcn"]
    code = compiled.asm.get("cubin", b"")
    return Binary(compiled.metadata.name, text, code, compiled.metadata.shared)


def _triton(variant: Variant, target: str) -> Binary:
    given = tuple(variant.arguments.items()), tuple(variant.constants.items())
    return _triton_cached(variant.kernel, target, variant.threads, *given)


@cache
def _nvcc(target: str) -> tuple[str, bytes]:
    """PTX and cubin of csrc/gpu/coverage.cu."""
    with tempfile.TemporaryDirectory() as folder:
        ptx, cubin = Path(folder) / "coverage.ptx", Path(folder) / "coverage.cubin"
        command = ["nvcc", f"-I{CSRC}", f"-arch={target}", *NVCC]
        subprocess.run([*command, "-ptx", str(CSRC / "gpu" / "coverage.cu"), "-o", str(ptx)], check=True)
        subprocess.run([*command, "-cubin", str(ptx), "-o", str(cubin)], check=True)
        return ptx.read_text(), cubin.read_bytes()


def _cuda(name: str, target: str) -> Binary:
    text, code = _nvcc(target)
    (entry,) = re.findall(rf"\.entry (\w*{name}\w*)\(", text)
    return Binary(entry, text, code, 0)
