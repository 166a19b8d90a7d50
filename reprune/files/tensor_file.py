"""Read and write safetensors files that carry a head of plain values and a checksum of everything."""

from __future__ import annotations

import codecs
import contextlib
import json
import math
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..distributed import rank_and_size
from ..modules.sharded import is_part, whole
from ..modules.slicing import Slices, slice_tensor, sliced_shape
from ..strict_json import Pieces, is_int, loads, parsed_size
from .atomic import atomic_write, name_of

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LONGEST_HEADER = 100_000_000  # bytes, as in the specification of the format
PIECE, TEXT_PIECE = 2**20, 2**16  # bytes that are read at once
LONGEST_NAME = 2**16  # bytes; of a tensor's entry in the table, too
MOST_WEIGHT = 2**25  # bytes of memory for the plain values of a file without a checksum, however small
NONE: Slices = MappingProxyType({})
START = '{"__metadata__":{"checksum":"'  # how a header begins; the checksum is filled in last


def write(
    path: str | os.PathLike[str], key: str, head: Any, tensors: Mapping[str, Tensor], slices: Slices = NONE
) -> None:
    """Write `tensors` and, under `key` of the metadata, `head` as JSON; see :func:`atomic_write`.

    Of those in `slices` only these positions are written; the slice of one is in memory at a time. Where some
    are in parts on several processes, all call this, and the first one writes.

    Raises `ValueError` for a tensor that such a file cannot hold.
    """
    for name, tensor in tensors.items():
        check_tensor(name, tensor)
    text, entries, end = json.dumps(head), {}, 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        shape = sliced_shape(tensors[name].shape, slices.get(name, {}))
        begin, end = end, end + math.prod(shape) * tensors[name].element_size()
        entries[name] = Entry(NAMES[tensors[name].dtype], shape, begin, end)
    fields = {name: entry.fields() for name, entry in entries.items()}
    metadata = {"__metadata__": {"checksum": "0" * 8, key: text}}
    header = json.dumps(metadata | fields, separators=(",", ":")).encode()
    assert header.startswith(START.encode())
    header += b" " * (-len(header) % 8)
    if len(header) > LONGEST_HEADER:
        raise ValueError(f"{name_of(path)}: {len(header):,} bytes of plain values are too many for a file")
    if any(map(is_part, tensors.values())) and rank_and_size()[0] > 0:
        for name in entries:
            whole(tensors[name])
        return
    with atomic_write(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        sums = {}
        for name in entries:
            data = _bytes_of(slice_tensor(whole(tensors[name]), slices.get(name, {})))
            sums[name] = zlib.crc32(data)
            file.write(data)
        file.seek(8 + len(START))
        file.write(_checksum(zlib.crc32(text.encode()), entries, sums).encode())


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], key: str, writer: str) -> Iterator[TensorFile]:
    """Open the file at `path` and check its head.

    Raises `FileNotFoundError`, and `ValueError` if it is incomplete or not written by `writer`; the latter
    also where its tensors are read.
    """
    name = name_of(path)
    try:
        kind = os.stat(name).st_mode
    except FileNotFoundError:
        raise FileNotFoundError(f"{name}: no such file") from None
    expected = f"{name}: expected a file that {writer} wrote; got"
    if not stat.S_ISREG(kind):
        raise ValueError(f"{expected} a {'folder' if stat.S_ISDIR(kind) else 'FIFO, device or socket'}")
    with open(name, "rb", buffering=0) as file:
        try:
            yield TensorFile(file, key)
        except UnreadableError as error:
            raise ValueError(f"{expected} {error}") from None


class UnreadableError(Exception):
    """Raised for a file that cannot be read; :func:`opened` turns it into a `ValueError` with the path."""


def _damaged(reason: object) -> UnreadableError:
    return UnreadableError(f"one that is damaged or no safetensors file ({reason})")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor lies in a file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def fields(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "shape": list(self.shape), "data_offsets": [self.begin, self.end]}


class TensorFile:
    """A file that is read in pieces.

    Nothing is allocated by a size that the file claims before that size is checked, and no tensor
    before it is requested.
    """

    def __init__(self, file: BinaryIO, key: str) -> None:
        self._file = file
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(size - 8, LONGEST_HEADER):
            raise _damaged("the length of its header is wrong")
        self._start = 8 + length
        self._entries: dict[str, Entry] = {}
        self._sums: dict[str, int] = {}
        try:
            metadata = self._read_header(length)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _damaged(f"the header is damaged: {error}") from None
        self._check_places(size - self._start)
        if key not in metadata:
            raise UnreadableError("a safetensors file of another kind")
        text = metadata[key]
        self._text_sum = 0
        for piece in text:
            self._text_sum = zlib.crc32(piece, self._text_sum)
        told = metadata.get("checksum")
        self._sum = None if told is None else b"".join(told).decode(errors="replace")
        if sum(map(len, text)) > PIECE:  # read, it takes more: it must be right, or small for this file
            self.check()
            if self._sum is None and sum(map(parsed_size, text)) > max(size, MOST_WEIGHT):
                raise _damaged("its header is too large for a file without a checksum")
        try:
            self.head = loads(b"".join(text).decode(errors="surrogatepass"))
        except ValueError as error:
            raise _damaged(f"the header is damaged: {error}") from None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self._entries.items()}

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        return {name: DTYPES[entry.dtype] for name, entry in self._entries.items()}

    def check(self) -> None:
        """Raise an error unless the content has the checksum that the file gives, if it gives one.

        Everything that was not read yet is read for that. What is read later must be the same.
        """
        if self._sum is None:
            return
        for name, entry in self._entries.items():
            if name not in self._sums:
                self._sums[name] = self._sum_of(name, entry)
        if self._sum != _checksum(self._text_sum, self._entries, self._sums):
            raise _damaged("its checksum is not that of its content")

    def read(self, name: str, out: Tensor) -> Tensor:
        """Copy the tensor `name` into `out`, which has its shape, and return `out`."""
        entry, total = self._entries[name], 0
        self._file.seek(self._start + entry.begin)
        dtype = DTYPES[entry.dtype]
        for part in _parts(out.detach(), dtype.itemsize):
            direct = part.is_contiguous() and part.device.type == "cpu" and part.dtype == dtype
            stored = part if direct else torch.empty(part.shape, dtype=dtype)
            total = self._fill(stored.reshape(-1).view(torch.uint8).numpy().data, name, total)
            if not direct:
                part.copy_(stored)
        if self._sums.setdefault(name, total) != total:
            raise _damaged("it has changed meanwhile")
        return out

    def new(self, name: str) -> Tensor:
        """Return the tensor `name` in memory of its own."""
        return self.read(name, torch.empty(self.shapes[name], dtype=self.dtypes[name]))

    def _read_header(self, length: int) -> dict[str, list[bytes]]:
        """Fill the table of tensors and return the metadata."""
        pieces = Pieces(codecs.iterdecode(self._pieces(length), "utf-8"))
        metadata: dict[str, list[bytes]] = {}
        for name in pieces.members(LONGEST_NAME):
            if name == "__metadata__":
                for key in pieces.members(LONGEST_NAME):
                    metadata[key] = pieces.string(length)
            else:
                self._entries[name] = _entry(pieces.flat(LONGEST_NAME))
        if pieces.next():
            raise ValueError("something comes after its end")
        return metadata

    def _check_places(self, size: int) -> None:
        """Check that the tensors lie one after the other and fill `size` bytes."""
        self._entries = dict(sorted(self._entries.items(), key=lambda item: (item[1].begin, item[1].end)))
        end = 0
        for name, entry in self._entries.items():
            if entry.begin != end:
                raise _damaged(f"the place of {name} is wrong")
            end = entry.end
        if end != size:
            raise _damaged(f"its tensors should have {end} bytes and have {size}")

    def _sum_of(self, name: str, entry: Entry) -> int:
        self._file.seek(self._start + entry.begin)
        left, total, buffer = entry.end - entry.begin, 0, memoryview(bytearray(PIECE))
        while left:
            piece = buffer[: min(left, PIECE)]
            total = self._fill(piece, name, total)
            left -= len(piece)
        return total

    def _fill(self, memory: memoryview, name: str, total: int) -> int:
        """Fill `memory` with the next bytes of the tensor `name`, and update the checksum `total`."""
        boolean = self._entries[name].dtype == "BOOL"
        while memory:
            count = self._file.readinto(memory[:PIECE])  # type: ignore[attr-defined]  # of unbuffered files
            if not count:
                raise _damaged("it ends too early")
            if boolean and np.frombuffer(memory[:count], np.uint8).max() > 1:
                raise _damaged(f"{name} has values that are neither true nor false")
            total = zlib.crc32(memory[:count], total)
            memory = memory[count:]
        return total

    def _pieces(self, length: int) -> Iterator[bytes]:
        """Yield the next `length` bytes in pieces, as far as they can be text."""
        while length:
            piece = self._file.read(min(length, TEXT_PIECE))
            if not piece or b"\0" in piece:
                raise ValueError("no text")
            length -= len(piece)
            yield piece


def _parts(out: Tensor, size: int) -> Iterator[Tensor]:
    """Yield parts of `out` in order: itself if contiguous, else pieces of about ``PIECE`` bytes.

    `size` is the number of bytes of an element.
    """
    if out.is_contiguous() or out.numel() * size <= PIECE:
        yield out
    elif (row := out[0].numel() * size) > PIECE:
        for part in out:
            yield from _parts(part, size)
    else:
        step = PIECE // row
        yield from (out[start : start + step] for start in range(0, len(out), step))


def _entry(fields: dict[str, Any]) -> Entry:
    """Parse one tensor's entry in a header; raise an error of some kind if it is wrong."""
    name, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(shape, list) or not all(map(is_int, (*shape, begin, end))):
        raise ValueError("a shape or a place is not made of integers")
    size = DTYPES[name].itemsize
    if math.prod(shape) * size != end - begin or math.prod(max(n, 1) for n in shape) * size >= 2**63:
        raise ValueError(f"a tensor of shape {shape} does not fit its place")
    return Entry(name, tuple(shape), begin, end)


def check_tensor(name: str, tensor: Tensor) -> None:
    """Raise `ValueError` unless a file can hold `tensor`."""
    if tensor.device.type == "meta":
        raise ValueError(f"{name}: expected a tensor with values; got one on the device 'meta'")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        raise ValueError(f"{name}: expected a dense tensor; got a sparse, quantized or nested one")
    if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__ and not is_part(tensor):
        raise ValueError(f"{name}: expected a plain tensor; got a {type(tensor).__name__}")
    if tensor.dtype not in NAMES:
        raise ValueError(f"{name}: tensors of {tensor.dtype} cannot be saved")
    if name == "__metadata__":
        raise ValueError(f"{name}: no tensor in a file can have this name")


def _bytes_of(tensor: Tensor) -> memoryview:
    plain = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data


def _checksum(total: int, entries: Mapping[str, Entry], sums: Mapping[str, int]) -> str:
    """Return the CRC-32 of the head and of the tensors' names, dtypes, shapes and own CRC-32s.

    `total` is the CRC-32 of the head.
    """
    for name, entry in sorted(entries.items()):
        line = f"\n{name} {entry.dtype} {entry.shape} {sums[name]:08x}"
        total = zlib.crc32(line.encode(errors="surrogatepass"), total)
    return f"{total:08x}"
