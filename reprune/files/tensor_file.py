"""Safetensors files that carry a head of plain values and a checksum of everything in them."""

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
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..strict_json import is_int, loads
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
PIECE = 2**20  # bytes that are read at once
START = '{"__metadata__":{"checksum":"'  # how a header begins; the checksum is filled in last


def write(path: str | os.PathLike[str], key: str, head: Any, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` and, under `key` of the metadata, `head` as JSON; see :func:`atomic_write`.

    Raises `ValueError` for a tensor that such a file cannot hold.
    """
    for name, tensor in tensors.items():
        check_tensor(name, tensor)
    text, entries, end = json.dumps(head), {}, 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):
        begin, end = end, end + tensors[name].numel() * tensors[name].element_size()
        entries[name] = Entry(NAMES[tensors[name].dtype], tuple(tensors[name].shape), begin, end)
    fields = {name: entry.fields() for name, entry in entries.items()}
    metadata = {"__metadata__": {"checksum": "0" * 8, key: text}}
    header = json.dumps(metadata | fields, separators=(",", ":")).encode()
    assert header.startswith(START.encode())
    header += b" " * (-len(header) % 8)
    if len(header) > LONGEST_HEADER:
        raise ValueError(f"{name_of(path)}: {len(header):,} bytes of plain values are too many for a file")
    with atomic_write(path) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        sums = {}
        for name in entries:
            data = _bytes_of(tensors[name])
            sums[name] = zlib.crc32(data)
            file.write(data)
        file.seek(8 + len(START))
        file.write(_checksum(text, entries, sums).encode())


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], key: str, writer: str) -> Iterator[TensorFile]:
    """The file at `path`, its head looked at.

    Raises `FileNotFoundError`, and `ValueError` if it is not whole or no file that `writer` wrote, here
    and where its tensors are read.
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
    """What a file is instead of one to read; :func:`opened` makes a `ValueError` of it that names the
    file."""


def _damaged(reason: object) -> UnreadableError:
    return UnreadableError(f"one that is damaged or no safetensors file ({reason})")


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies in a file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def fields(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "shape": list(self.shape), "data_offsets": [self.begin, self.end]}


class TensorFile:
    """A file that is read: nothing of a size that it claims is allocated before that size is checked."""

    def __init__(self, file: BinaryIO, key: str) -> None:
        self._file = file
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or not 2 <= length <= min(size - 8, LONGEST_HEADER):
            raise _damaged("the length of its header is wrong")
        try:
            header = loads("".join(codecs.iterdecode(self._pieces(length), "utf-8")))
            metadata = header.pop("__metadata__", {})
            entries = {name: _entry(fields) for name, fields in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _damaged(f"the header is damaged: {error}") from None
        self._entries = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
        end = 0
        for name, entry in self._entries.items():
            if entry.begin != end:
                raise _damaged(f"the place of {name} is wrong")
            end = entry.end
        if end != size - 8 - length:
            raise _damaged(f"its tensors should have {end} bytes and have {size - 8 - length}")
        if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
            raise _damaged("its metadata is wrong")
        if key not in metadata:
            raise UnreadableError("a safetensors file of another kind")
        self._text, self._sum = metadata[key], metadata.get("checksum")
        try:
            self.head = loads(self._text)
        except ValueError as error:
            raise _damaged(f"the header is damaged: {error}") from None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: entry.shape for name, entry in self._entries.items()}

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        return {name: DTYPES[entry.dtype] for name, entry in self._entries.items()}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, each in aligned memory of its own; checked, if the file has a checksum."""
        found, sums = {}, {}
        for name, entry in self._entries.items():
            data = torch.empty(entry.end - entry.begin, dtype=torch.uint8)
            sums[name] = self._read_into(data.numpy().data)
            if entry.dtype == "BOOL" and bool((data > 1).any()):
                raise _damaged(f"{name} has values that are neither true nor false")
            found[name] = data.view(DTYPES[entry.dtype]).view(entry.shape)
        if self._sum is not None and self._sum != _checksum(self._text, self._entries, sums):
            raise _damaged("its checksum is not that of its content")
        return found

    def _read_into(self, memory: memoryview) -> int:
        """Fill `memory` from the file; its checksum."""
        total = 0
        while memory:
            count = self._file.readinto(memory[:PIECE])  # type: ignore[attr-defined]  # of unbuffered files
            if not count:
                raise _damaged("it ends too early")
            total = zlib.crc32(memory[:count], total)
            memory = memory[count:]
        return total

    def _pieces(self, length: int) -> Iterator[bytes]:
        """The next `length` bytes, as far as they can be text."""
        while length:
            piece = self._file.read(min(length, PIECE))
            if not piece or b"\0" in piece:
                raise ValueError("no text")
            length -= len(piece)
            yield piece


def _entry(fields: dict[str, Any]) -> Entry:
    """One tensor's entry in a header; an error of some kind if it is wrong."""
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
    if type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        raise ValueError(f"{name}: expected a plain tensor; got a {type(tensor).__name__}")
    if tensor.dtype not in NAMES:
        raise ValueError(f"{name}: tensors of {tensor.dtype} cannot be saved")
    if name == "__metadata__":
        raise ValueError(f"{name}: no tensor in a file can have this name")


def _bytes_of(tensor: Tensor) -> memoryview:
    plain = tensor.detach().to("cpu").resolve_conj().resolve_neg().contiguous()
    return plain.reshape(-1).view(torch.uint8).numpy().data


def _checksum(text: str, entries: Mapping[str, Entry], sums: Mapping[str, int]) -> str:
    """CRC-32 of the head, of the tensors' names, kinds and shapes, and of their own CRC-32."""
    total = zlib.crc32(text.encode(errors="surrogatepass"))
    for name, entry in sorted(entries.items()):
        line = f"\n{name} {entry.dtype} {entry.shape} {sums[name]:08x}"
        total = zlib.crc32(line.encode(errors="surrogatepass"), total)
    return f"{total:08x}"
