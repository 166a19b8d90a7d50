"""The compiled kernels of the GPU path, run instruction by instruction in a PTX simulator on the CPU.

Every buffer that a kernel has to fill is poisoned: a read before the write is an error. Tests use it too.
"""

import copy
import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from benchmarks.gpu.variants import Variant, cut_variant, ward_variant
from reprune.clustering import reference
from reprune.clustering.backends import core
from reprune.kernels import cut as cut_kernels

TYPES = {np.float32: torch.float32, np.float64: torch.float64}
COVER_THREADS, INDEX_THREADS, INDEX_BLOCKS = 512, 128, 32  # as csrc/gpu/cover_layers.hpp launches them


def simulator(folder: Path) -> ModuleType:
    """The module `ptxsim` of a folder; FileNotFoundError where it is not."""
    if not (folder / "ptxsim.py").is_file():
        raise FileNotFoundError(f"no PTX simulator in {folder}: it has no ptxsim.py")
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("ptxsim")
    finally:
        sys.path.remove(str(folder))


class Kernel:
    """A variant of Triton for one target."""

    def __init__(self, ptxsim: ModuleType, variant: Variant, target: str = "sm_90") -> None:
        binary = variant.compile(target)
        self.text = binary.assembly
        self.ptxsim, self.variant, self.module = ptxsim, variant, ptxsim.Module(self.text)
        self.meta = {"shared": binary.shared, "num_warps": variant.threads // 32}
        self.name = binary.kernel

    def of(self, module: object) -> "Kernel":
        """The same kernel from other PTX."""
        other = copy.copy(self)
        other.module = module
        return other

    def __call__(self, programs, *arguments, **how):  # type: ignore[no-untyped-def]
        return self.ptxsim.launch_triton(self.module, self.name, self.meta, (programs,), arguments, **how)


def ward_kernel(ptxsim, d, dtype, target="sm_90", points=None):  # type: ignore[no-untyped-def]
    """Of a state of `dtype`, for points of the same type or another."""
    variant = ward_variant(d, TYPES[dtype], target, DOUBLE=int((points or dtype) is np.float64))
    return Kernel(ptxsim, variant, target)


def ward(kernel, problems, **how):  # type: ignore[no-untyped-def]
    """Statistics, and the links (up, tops) of problems [n, d], all of one d."""
    ptxsim, constants = kernel.ptxsim, kernel.variant.constants
    memory, d, C = ptxsim.Memory(), constants["D"], constants["C"]
    rows, place, begin = [], 0, 0
    for points in problems:
        n = len(points)
        which = points[:, 0].argsort(kind="stable") if d == 1 else np.arange(n)
        source = memory.alloc(np.ascontiguousarray(points[which].T), ro=True).addr  # [d, n]
        order = memory.alloc(which, ro=True).addr if d == 1 else 0
        rows.append((source, 1, n, order, n, place, begin))
        place, begin = place + n, begin - (-n // C) * C
    reals = np.float32 if kernel.variant.arguments["points"] == "*fp32" else np.float64
    up, tops = np.zeros(place, np.int32), np.zeros(place)
    filled = (
        np.zeros(begin * (d + 4), reals),
        np.zeros(begin * 5, np.int32),
        np.zeros((place, 3), np.int32),
        np.zeros(place),
        up,
        tops,
    )
    given = [np.array(rows, np.int64), *map(ptxsim.Poison, filled)]
    stats = kernel(len(problems), *given, memory=memory, **how)
    return stats, [(up[p : p + n], tops[p : p + n]) for *_, n, p, _ in rows]


def cut_kernels_of(ptxsim, n, target="sm_90"):  # type: ignore[no-untyped-def]
    """Those for up to n points: of heights, of labels."""
    kernels = cut_kernels.height_kernel, cut_kernels.label_kernel
    return [Kernel(ptxsim, cut_variant(kernel, n), target) for kernel in kernels]


def cut(kernels, links, layers, merges, **how):  # type: ignore[no-untyped-def]
    """Two statistics, cuts of the layers, and (labels, clusters) of problems with links (up, tops).

    `layers`: the layer of every problem; `merges`: those that every problem of a layer makes at least.
    """
    ptxsim = kernels[0].ptxsim
    sizes = np.array([len(up) for up, _ in links])
    places, numbers = np.cumsum(sizes) - sizes, np.arange(len(sizes))[::-1]  # numbers: in another order
    rows = np.stack([sizes, places, layers, np.asarray(merges)[layers], numbers], axis=1).astype(np.int64)
    up, tops = (np.concatenate(parts) for parts in zip(*links, strict=True))
    cuts = np.where(np.asarray(merges) > 0, 0, -(1 << 52))
    labels, clusters = np.zeros(len(up), np.int32), np.zeros(len(sizes), np.int32)
    first = kernels[0](len(sizes), rows, tops, cuts, **how)
    poisoned = map(ptxsim.Poison, (labels, clusters))
    second = kernels[1](len(sizes), rows, up, tops, cuts, *poisoned, **how)
    found = [(labels[p : p + n], clusters[k]) for n, p, k in zip(sizes, places, numbers, strict=True)]
    return [first, second], cuts.view(np.float64), found


def cover(  # type: ignore[no-untyped-def]
    ptxsim, modules, tables, keeps, norms, seed, race=True, threads=COVER_THREADS, blocks=INDEX_BLOCKS
):
    """Two statistics, and (order, gains) of label tables [O, I].

    `modules`: (loaded PTX, name) of the kernel that indexes and of the one that picks.
    """
    memory = ptxsim.Memory()
    layers, results = [], []
    for k, (labels, keep, norm) in enumerate(zip(tables, keeps, norms, strict=True)):
        O, I = labels.shape
        results.append((np.full(keep, -7), np.full(keep, -7)))
        columns = np.ascontiguousarray(labels.T, np.int32)
        index = np.zeros((I, 2 * O + 1), np.uint16)
        layers.append(
            (
                memory.alloc(columns, ro=True).addr,
                0 if norm is None else memory.alloc(norm, ro=True).addr,
                memory.alloc(index, poison=True).addr,
                *(memory.alloc(result, poison=True).addr for result in results[-1]),
                *(O, I, int(labels.max()) + 1, keep, reference.tie_key(seed, str(k))),
            )
        )
    packed, filters, clusters = core().pack_layers(layers)
    given = memory.alloc(np.frombuffer(packed, np.uint8).copy(), ro=True)
    how = {"seed": seed, "race": race, "memory": memory}
    (indexer, index_name), (coverer, cover_name) = modules
    index_grid, index_shared = (blocks, len(tables)), 4 * (INDEX_THREADS // 32) * clusters
    cover_shared = 4 * (-(-filters // 4) * 4)
    stats = [
        indexer.launch(index_name, index_grid, (INDEX_THREADS,), [given], shared=index_shared, **how),
        coverer.launch(cover_name, (len(tables),), (threads,), [given], shared=cover_shared, **how),
    ]
    return stats, results
