"""What a compiled kernel takes of a multiprocessor, read from its machine code."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from triton import knobs

from benchmarks.gpu.variants import TARGETS, Binary, Variant

RESERVED = 1024  # bytes of shared memory that compute capability 9.0 and newer keep for themselves


@dataclass(frozen=True)
class Report:
    variant: str
    target: str
    kernel: str
    registers: int
    """Of a thread."""
    stack: int
    """Bytes of a thread, spills included."""
    shared: int
    """Bytes of a block, but for what a launch of the CUDA kernels asks for."""
    barriers: int
    """Of a block or warp, in the PTX; s_barrier on AMD."""
    warps: int
    """Of a multiprocessor at once, as far as registers go."""
    per_pair: float | None
    """Instructions of a lane in the scan's inner loop for each distance; None where there is no scan, or
    where the compiler laid its loops out so that the scan's could not be identified."""


@dataclass(frozen=True)
class Line:
    """An instruction, and where it branches to: a line's index, or -1."""

    text: str
    to: int = -1


def report_of(variant: Variant, target: str, binary: Binary) -> Report:
    nvidia = target.startswith("sm_")
    lines, registers, stack, static = _nvidia(target, binary) if nvidia else _amd(binary.assembly)
    of_many = isinstance(variant.kernel, str)  # those of one CUDA file; of Triton it is one and its functions
    own = _entry(binary) if of_many else binary.assembly
    barrier = r"\b(?:bar\.sync|barrier\.sync|bar\.warp\.sync|s_barrier)\b"
    return Report(
        variant.name,
        target,
        binary.kernel,
        registers,
        stack,
        static + binary.shared,
        len(re.findall(barrier, own)),
        _warps(registers, variant.threads // 32, nvidia),
        _per_pair(lines, variant.constants, variant.threads // 32 * TARGETS[target].warp_size),
    )


def _entry(binary: Binary) -> str:
    """The part of the PTX that is the kernel's."""
    start = binary.assembly.index(f".entry {binary.kernel}(")
    return binary.assembly[start : binary.assembly.index("\n}", start)]


def _nvidia(target: str, binary: Binary) -> tuple[list[Line], int, int, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(binary.code)
        usage, code = (
            subprocess.run(
                [knobs.nvidia.cuobjdump.path, option, str(path)], check=True, capture_output=True, text=True
            ).stdout
            for option in ("-res-usage", "-sass")
        )
    numbers = re.search(rf"{binary.kernel}:\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", usage)
    assert numbers is not None, usage
    registers, stack, static, _ = map(int, numbers.groups())
    code = code[code.index(f"Function : {binary.kernel}\n") :]
    code = code.split("Function :", 2)[1]
    found = re.findall(r"/\*([0-9a-f]{4,})\*/\s+([^;]*);", code)
    at = {int(address, 16): k for k, (address, _) in enumerate(found)}
    lines = []
    for _, text in found:
        branch = re.search(r"\bBRA\S*\s.*?(0x[0-9a-f]+)$", text.strip())
        lines.append(Line(text.strip(), at.get(int(branch.group(1), 16), -1) if branch else -1))
    spills = any(re.search(r"\b(?:STL|LDL)\b", line.text) for line in lines)
    assert stack > 0 or not spills, "spills without a stack"
    return lines, registers, stack, max(0, static - (0 if target == "sm_80" else RESERVED))


def _amd(text: str) -> tuple[list[Line], int, int, int]:
    number = {
        name: int(re.search(rf"\.{name}:\s*(\d+)", text).group(1))  # type: ignore[union-attr]
        for name in ("vgpr_count", "private_segment_fixed_size", "group_segment_fixed_size")
    }
    labels: dict[str, int] = {}
    kept: list[str] = []
    for raw in text[: text.index(".Lfunc_end0:")].splitlines():
        label = re.match(r"(\.LBB\w+):", raw)
        if label is not None:
            labels[label.group(1)] = len(kept)
        elif re.match(r"\t[a-z]\w+", raw):
            kept.append(raw.split(";")[0].strip())
    lines = []
    for own in kept:
        branch = re.match(r"s_c?branch\S*\s+(\.LBB\w+)", own)
        lines.append(Line(own, labels[branch.group(1)] if branch else -1))
    return lines, *number.values()


def _warps(registers: int, warps: int, nvidia: bool) -> int:
    """Warps that have registers: 65,536 words in four parts, given out to warps by 256 (NVIDIA); 512 words of
    each lane in four parts, given out by eights (AMD)."""
    step = -(-max(registers, 1) // 8) * 8
    each = min(16, 16384 // (32 * step)) if nvidia else min(8, 512 // step)
    return min(4 * each // warps, 32) * warps


def _per_pair(lines: list[Line], constants: dict[str, int], threads: int) -> float | None:
    """Of the inner loops that evaluate distances and divide by sizes, the shortest one's.

    A loop over coordinates inside (d > 16) runs as often as its multiply-adds ask for.
    """
    if "R" not in constants:
        return None
    pairs = constants["R"] * 32 / threads
    loops = {(line.to, k + 1) for k, line in enumerate(lines) if 0 <= line.to <= k}
    root = re.compile(r"\bMUFU\.RCP\b|\bv_rsq_f32")
    scans = [(a, b) for a, b in loops if sum(bool(root.search(x.text)) for x in lines[a:b]) >= pairs > 1]
    scans = [(a, b) for a, b in scans if not any(a <= c and d <= b and (a, b) != (c, d) for c, d in scans)]
    counts = [_executed(lines, scan, loops, constants["D"], pairs) for scan in scans]
    return min((count / pairs for count in counts if count is not None), default=None)


def _executed(
    lines: list[Line], scan: tuple[int, int], loops: set[tuple[int, int]], D: int, pairs: float
) -> float | None:
    begin, end = scan
    inner = sorted((a, b) for a, b in loops if begin <= a and b <= end and (a, b) != scan)
    outer = end - begin - sum(b - a for a, b in inner)
    steps = [(sum(_multiply_adds(line) for line in lines[a:b]) / pairs, b - a) for a, b in inner]
    total, left = float(outer), D
    for coordinates, length in sorted(steps, reverse=True):
        times = int(left // coordinates) if coordinates else 1
        total, left = total + times * length, left - int(times * coordinates)
    own = [line for k, line in enumerate(lines[begin:end], begin) if not any(a <= k < b for a, b in inner)]
    # the first square may be no multiply-add; more than that, and a loop over coordinates lies elsewhere
    return total if left - sum(map(_multiply_adds, own)) / pairs <= 1 else None


def _multiply_adds(line: Line) -> int:
    """Of a lane; Blackwell's FFMA2 and AMD's packed ones do two."""
    if re.search(r"\bFFMA2\b|\bv_pk_(?:fma|mul)_f32", line.text):
        return 2
    return int(bool(re.search(r"\b[DF]FMA\b|\bv_(?:fma|fmac|mul)_f(?:32|64)", line.text)))
