"""Damaged files: one documented error or an equal network, nothing changed, little memory.

`tests/tools/damaged.py` damages more of them.
"""

import json
import re
import struct
import sys

import pytest
import torch

import reprune
from reprune import strict_json
from tests.helpers.processes import run_module
from tests.tools import damaged


@pytest.mark.parametrize("kind", damaged.KINDS, ids=lambda kind: kind.name)
def test_a_damaged_file_is_refused_or_the_same(kind, tmp_path):
    told = damaged.run(kind, 40, 7, tmp_path)
    assert sum(told.values()) == 40
    assert told["refused"] >= 20


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
@pytest.mark.parametrize(
    "ways", ["whole,spaces,lists", pytest.param(",".join(damaged.WAYS), marks=pytest.mark.slow, id="all")]
)
def test_a_file_is_read_with_little_memory(ways):
    done = run_module("tests.tools.damaged", "memory", "model", ways, 48, timeout=300)
    assert done.returncode == 0, done.stderr
    found = {way: float(share) for way, share in (line.split(": ") for line in done.stdout.splitlines())}
    assert list(found) == ways.split(",")
    assert max(found.values()) <= 1.2, found


def pieces(text, size):
    return strict_json.Pieces(text[at : at + size] for at in range(0, len(text), size))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
@pytest.mark.parametrize(
    "value", ["", "plain", '\\"\n\t/', "é€𝄞", "\\ud834", "a" * 50 + "\U0001d11e", "\ud834", "\\\\\\"]
)
def test_strings_in_pieces_are_those_of_json(value, size):
    for ascii_only in (True, False):
        if "\ud834" in value and not ascii_only:
            continue
        text = json.dumps(value, ensure_ascii=ascii_only)
        found = b"".join(pieces(text, size).string(1000))
        assert found.decode(errors="surrogatepass") == value


@pytest.mark.parametrize("text", ['"a', '"a\\', '"\\x12345678901"', '"\n"', '"\\ud83d\\"', '"\\u12"'])
def test_strings_that_json_refuses_are_refused(text):
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    for size in (1, 4, 100):
        with pytest.raises(ValueError, match="does not end"):
            pieces(text, size).string(1000)


@pytest.mark.parametrize(
    "text, keys",
    [("{}", []), (' { "a" : {} , "b":{"c" :1} } ', ["a", "b"]), ('{"\\u0061":{}}', ["a"])],
)
def test_members_are_those_of_json(text, keys):
    found = pieces(text, 3)
    read = {key: found.flat(100) for key in found.members(100)}
    assert list(read) == keys
    assert read == json.loads(text)
    assert not found.next()


@pytest.mark.parametrize(
    "text", ["", "[", "{", '{"a":{},}', '{,"a":{}}', '{"a" {}}', '{"a":{} "b":{}}', '{"a":{},"a":{}}']
)
def test_members_that_json_refuses_are_refused(text):
    found = pieces(text, 2)
    with pytest.raises(ValueError, match=re.compile("expected|twice|end")):
        [found.flat(100) for _ in found.members(100)]


def test_a_header_that_cannot_be_verified_may_not_grow(tmp_path):
    net = torch.nn.Linear(2, 2)
    text = json.dumps({"__metadata__": {"reprune": "[" + "[]," * 1_000_000 + "0]"}}).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text)
    with pytest.raises(ValueError, match="too large for a file without a checksum"):
        reprune.load(tmp_path / "x", net)


def test_tensors_of_a_training_that_are_not_numbered(tmp_path):
    case = damaged.Training(tmp_path)
    raw = case.path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    del header["__metadata__"]["checksum"]
    header["x"] = header.pop("0")
    text = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    with pytest.raises(ValueError, match=r"x: the header is damaged \(its tensors are not numbered\)"):
        case.read(tmp_path / "x")
