"""The kernels of the GPU path, compiled without a GPU, and how each is launched."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from reprune.kernels.cut import label_kernel
from reprune.kernels.launch import EXACT, label_tile, line_tile, rule_tile, square_tile, ward_tile
from reprune.kernels.line import line_kernel, spread_kernel
from reprune.kernels.pairwise import distance_kernel, place_kernel
from reprune.kernels.rule import rule_kernel
from reprune.kernels.square import METHODS, square_kernel
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

SIZES = (64, 256, 512, 2048)
"""Points of a problem: one of each tile."""
KERNEL_SIZES = (4, 9, 25, 49, 128)


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
    options: dict[str, object] = field(default_factory=dict)
    """What the compiler is told besides."""
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


POINTERS = {
    "parts": "*i64",
    "orders": "*i64",
    "points": "*fp32",
    "sums": "*fp64",
    "scales": "*fp64",
    "heights": "*fp64",
    "cuts": "*i64",
    "exponents": "*i64",
    **dict.fromkeys(("values", "totals", "matrix", "least", "reached"), "*fp64"),
    **dict.fromkeys(("n", "first", "phase"), "i32"),
}
"""Types of the arguments that are no pointers to int32."""
OPTIONS = ("maxnreg", "num_stages", *EXACT)


def variant(name: str, kernel: object, target: str, how: dict[str, object]) -> Variant:
    """A kernel launched as `how` says, which names constants and options, as on `target`."""
    options = {key: value for key, value in how.items() if key in OPTIONS}
    constants = {key: value for key, value in how.items() if key not in (*OPTIONS, "num_warps")}
    names = [name for name in kernel.arg_names if name not in constants]  # type: ignore[attr-defined]
    types = {name: POINTERS.get(name, "*i32") for name in names}
    warps = int(how["num_warps"])  # type: ignore[call-overload]
    return Variant(name, kernel, 32 * warps, "problems", types, constants, options, (target,))  # type: ignore[arg-type]


def ward_variant(d: int, n: int, target: str = "sm_90", double: bool = False, **changes: object) -> Variant:
    """Ward of points of d coordinates, float32 or float64, in the tile for n of them."""
    how = {"DOUBLE": double, "D": d, **EXACT, **ward_tile(n, d, CHIPS[target]), **changes}
    name = f"ward d={d} n={n}" + (" float64" if double else "")
    return variant(name, ward_kernel, target, how)


def line_variant(n: int, target: str = "sm_90", double: bool = False) -> Variant:
    """Ward of points of one coordinate, in the tile for n of them."""
    how = {"DOUBLE": double, "D": 1, **EXACT, **line_tile(n, CHIPS[target])}
    return variant(f"line n={n}" + (" float64" if double else ""), line_kernel, target, how)


def spread_variant(n: int, target: str = "sm_90", double: bool = False) -> Variant:
    """Points of one coordinate, side by side to be sorted."""
    how = {"DOUBLE": double, **EXACT, **line_tile(n, CHIPS[target])}
    return variant(f"spread n={n}" + (" float64" if double else ""), spread_kernel, target, how)


def rule_variant(d: int, target: str = "sm_90", double: bool = False) -> Variant:
    how = {"DOUBLE": double, "D": d, **EXACT, **rule_tile(CHIPS[target])}
    return variant(f"rule d={d}" + (" float64" if double else ""), rule_kernel, target, how)


def label_variant(n: int, target: str = "sm_90") -> Variant:
    return variant(f"label n={n}", label_kernel, target, {**EXACT, **label_tile(n, CHIPS[target])})


def square_variants(n: int, target: str = "sm_90") -> list[Variant]:
    """Distances of points of 9 coordinates, and single, complete and average linkage on them."""
    how = {**EXACT, **square_tile(n, CHIPS[target])}
    return [
        variant("place", place_kernel, target, {"D": 9, **how}),
        variant(f"distances d=9 n={n}", distance_kernel, target, {"D": 9, "SCALED": 0, **how}),
        *(
            variant(f"{method} n={n}", square_kernel, target, {"METHOD": number, **how})
            for number, method in enumerate(METHODS)
        ),
    ]


def triton_variants() -> list[Variant]:
    own = []
    for target in TARGETS:
        own += [ward_variant(9, n, target) for n in SIZES]
        own += [ward_variant(d, 512, target) for d in KERNEL_SIZES if d != 9]
        own += [ward_variant(9, 512, target, double=True)]
        own += [line_variant(n, target) for n in (64, 512, 4096)]
        own += [spread_variant(n, target) for n in (64, 512)]
        own += [rule_variant(d, target) for d in (1, 9)]
        own += [label_variant(n, target) for n in (64, 512, 4096)]
        own += square_variants(512, target)
    return own


def cuda_variants() -> tuple[list[Variant], str]:
    """Those of csrc/gpu/coverage.cu, or none and the reason."""
    if shutil.which("nvcc") is None:
        return [], "no CUDA compiler nvcc"
    layers = {"layers": "const CoverLayer* (csrc/gpu/coverage_layer.hpp)"}
    table = {"table": "SquaresOf (csrc/gpu/cover_layers.hpp), by value", "norms": "double*"}
    most = "4 * (most filters of a layer, rounded up to 4, and 32) bytes"
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
def _triton_cached(kernel, target, threads, arguments, constants, options) -> Binary:  # type: ignore[no-untyped-def]
    signature = dict(arguments) | dict.fromkeys(dict(constants), "constexpr")
    source = ASTSource(
        fn=kernel,
        signature={name: signature[name] for name in kernel.arg_names},
        constexprs=dict(constants),
    )
    compiled = triton.compile(
        source, target=TARGETS[target], options={"num_warps": threads // 32, **dict(options)}
    )
    text = compiled.asm["ptx" if target.startswith("sm_") else "amdgcn"]
    code = compiled.asm.get("cubin", b"")
    return Binary(compiled.metadata.name, text, code, compiled.metadata.shared)


def _triton(variant: Variant, target: str) -> Binary:
    own = variant.arguments, variant.constants, variant.options
    given = [tuple(part.items()) for part in own]
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
