"""The compiled kernels of the GPU path, run instruction by instruction in a PTX simulator on the CPU.

Every buffer that a kernel has to fill is poisoned: a read before the write is an error. Tests use it too.
"""

import contextlib
import copy
import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import torch

from benchmarks.gpu.variants import CHIPS, Variant, variant
from reprune.clustering import reference
from reprune.clustering.backends import core
from reprune.kernels import coverage, linkage, pairwise, parts, select, square
from reprune.kernels.launch import ward_tile

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


class Device:
    """Stands in for a GPU: the kernels of kernels/linkage.py run in the simulator, on tensors of the CPU.

    Within `with device:` the functions of reprune.kernels can be called as if it were one. `stats` has what
    every launch counted; `how` goes to every launch, `race=True` for example. `tile` changes that of Ward.
    """

    def __init__(self, ptxsim, target="sm_90", tile=None, **how):  # type: ignore[no-untyped-def]
        self.ptxsim, self.target, self.tile, self.how = ptxsim, target, tile or {}, how
        self.stats: list[object] = []
        self.instead: dict[str, object] = {}  # other PTX for a kernel, by name
        self.texts: dict[str, str] = {}  # PTX of the kernels that were launched
        self.patches = contextlib.ExitStack()
        self.forget()

    def forget(self) -> None:
        """Memory that nobody uses any more is not looked for again."""
        self.memory = self.ptxsim.Memory()
        self.buffers: dict[int, object] = {}
        self.tables: list[tuple[int, int, int]] = []
        self.alive: list[torch.Tensor] = []  # whose addresses are known

    def see(self, table: torch.Tensor) -> None:
        """Its addresses are to be known in the simulator."""
        whole = torch.empty(0, dtype=table.dtype).set_(table.untyped_storage())
        if all(whole.data_ptr() != begin for begin, _, _ in self.tables):
            address = self.memory.alloc(whole.numpy(), ro=True).addr
            self.tables.append((whole.data_ptr(), whole.nbytes, address))
            self.alive.append(whole)

    def __enter__(self):  # type: ignore[no-untyped-def]
        init = linkage.Linkage.__init__

        def begun(linkage, tables, *args, **kwargs):  # type: ignore[no-untyped-def]
            self.forget()
            for table in tables:
                self.see(table)
            init(linkage, tables, *args, **kwargs)

        for module, name, new in (
            (linkage.Linkage, "__init__", begun),
            (linkage, "chip_of", lambda device: CHIPS[self.target]),
            (select, "chip_of", lambda device: CHIPS[self.target]),
            (linkage, "divide", parts.divide.__wrapped__),
            (parts, "ward_tile", lambda n, d, chip: {**ward_tile(n, d, chip), **self.tile}),
            (linkage, "ward_kernel", Launcher(self, linkage.ward_kernel)),
            (linkage, "spread_kernel", Launcher(self, linkage.spread_kernel)),
            (linkage, "line_kernel", Launcher(self, linkage.line_kernel)),
            (linkage, "rule_kernel", Launcher(self, linkage.rule_kernel)),
            (select, "label_kernel", Launcher(self, select.label_kernel)),
            (pairwise, "chip_of", lambda device: CHIPS[self.target]),
            (square, "chip_of", lambda device: CHIPS[self.target]),
            (pairwise, "place_kernel", Launcher(self, pairwise.place_kernel)),
            (pairwise, "distance_kernel", Launcher(self, pairwise.distance_kernel)),
            (square, "square_kernel", Launcher(self, square.square_kernel)),
        ):
            self.patches.enter_context(mock.patch.object(module, name, new))
        return self

    def __exit__(self, *error: object) -> None:
        self.patches.close()

    def count(self, name: str = "") -> int:
        """Warp instructions of the kernels of this name."""
        return sum(s.warp_insts for s in self.stats if name in s.kernel)  # type: ignore[attr-defined]


FRESH = ("points", "state", "sums", "status", "scales", "links", "heights", "labels", "clusters", "totals")
FRESH += ("numbers", "exponents", "matrix", "least", "nearest", "sizes", "reached")
"""Arguments that a kernel has to fill."""


class Launcher:
    def __init__(self, device: Device, kernel: object) -> None:
        self.device, self.kernel = device, kernel

    def __getitem__(self, grid: tuple[int, ...]):  # type: ignore[no-untyped-def]
        return functools.partial(self.launch, grid)

    def launch(self, grid, *given, **how):  # type: ignore[no-untyped-def]
        own = self.device
        run = compiled(own.ptxsim, self.kernel, own.target, tuple(how.items()))
        own.texts[run.name] = run.text
        if run.name in own.instead:
            run = run.of(own.instead[run.name])
        buffers = [self.buffer(name, x) for name, x in zip(run.variant.arguments, given, strict=True)]
        stats = run(*grid, *buffers, memory=own.memory, **own.how)
        if own.how.get("race"):
            stats.check()
        own.stats.append(stats)

    def buffer(self, name: str, x: object) -> object:
        """The simulator's place of a tensor; addresses of points are translated."""
        if not isinstance(x, torch.Tensor):
            return x
        own = self.device
        key = x.data_ptr()
        if key not in own.buffers:
            own.alive.append(x)
            if name == "parts":
                x = x.clone()
                at = x[parts.ADDRESS :: parts.PART]
                for begin, length, address in own.tables:
                    here = (at >= begin) & (at < begin + max(length, 1))
                    at[here] += address - begin
            own.buffers[key] = own.memory.alloc(x.numpy(), name, poison=name in FRESH)
        return own.buffers[key]


@functools.cache
def compiled(ptxsim, kernel, target, how):  # type: ignore[no-untyped-def]
    return Kernel(ptxsim, variant(kernel.__name__, kernel, target, dict(how)), target)


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
        index = np.zeros(coverage.index_words(O, I), np.uint16)
        layers.append(
            (
                memory.alloc(columns, ro=True).addr,
                0 if norm is None else memory.alloc(norm, ro=True).addr,
                memory.alloc(index, poison=True).addr,
                *(memory.alloc(result, poison=True).addr for result in results[-1]),
                *(O, I, int(labels.max()) + 1, keep, reference.tie_key(seed, str(k))),
            )
        )
    packed, *shape = core().pack_layers(layers)
    index_words, cover_words = core().shared_words_on_gpu(tuple(shape))
    given = memory.alloc(np.frombuffer(packed, np.uint8).copy(), ro=True)
    how = {"seed": seed, "race": race, "memory": memory}
    (indexer, index_name), (coverer, cover_name) = modules
    grid = blocks, len(tables)
    stats = [
        indexer.launch(index_name, grid, (INDEX_THREADS,), [given], shared=4 * index_words, **how),
        coverer.launch(cover_name, (len(tables),), (threads,), [given], shared=4 * cover_words, **how),
    ]
    return stats, results
