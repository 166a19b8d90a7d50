"""Damaged files: one documented error or an equal network, nothing changed, little memory.

`python -m tests.tools.damaged COUNT SEED` damages a model's file, a training's file and a plan's JSON COUNT
times each: flipped bits, missing and doubled ends, edits of the header (with and without a checksum that
tells), garbage. `python -m tests.tools.damaged memory NAME WAYS MEGABYTES` prints how much memory a process
takes at most besides while it reads a file of about that size, over the size: of NAME (model, training or
masked) and damaged in each of the WAYS (whole,flip,cut,zeros,spaces,...).
"""

import ctypes
import gc
import json
import os
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import reprune
from tests.helpers.digests import digest
from tests.helpers.networks import images, small_resnet

X = images(2)
JUNK = (
    None,
    True,
    False,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x",
    [],
    {},
    [0],
)


class Model:
    """A file of a pruned network."""

    name = "model"

    def __init__(self, folder):
        self.path = folder / "model"
        reprune.save(reprune.prune(small_resnet(blocks=1), X, sparsity=0.5)[0], self.path)
        self.target = small_resnet(seed=1, blocks=1)
        self.expected = reprune.load(self.path, small_resnet(seed=1, blocks=1))(X)

    def before(self):
        return digest(self.target)

    def read(self, path):
        """Whether what was loaded is right."""
        reprune.load(path, self.target)
        right = torch.equal(self.target(X), self.expected)
        self.target = small_resnet(seed=1, blocks=1)
        return right


class Training:
    """A file of a training."""

    name = "training"

    def __init__(self, folder):
        self.path = folder / "training"
        done = self.build()
        model, optimizer, pruner, others = done
        nn.functional.cross_entropy(model.train()(images(8)), torch.arange(8) % 5).backward()
        optimizer.step()
        others["ema"].update_parameters(model)
        pruner.step()
        reprune.save_training(self.path, *done)
        self.target = self.build()
        self.expected = [t.clone() for t in model.state_dict().values()]

    def build(self):
        model = small_resnet(blocks=1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        others = {"ema": AveragedModel(model), "s": torch.optim.lr_scheduler.StepLR(optimizer, 1)}
        copies = [others["ema"]]
        settings = {"sparsity": 0.5, "interval": 1, "until": 3, "copies": copies}
        return model, optimizer, reprune.Pruner(model, optimizer, X, **settings), others

    def before(self):
        model, optimizer, pruner, others = self.target
        return digest(model, optimizer, pruner, *others.values())

    def read(self, path):
        reprune.load_training(path, *self.target)
        found = self.target[0].state_dict().values()
        right = all(torch.equal(a, b) for a, b in zip(found, self.expected, strict=True))
        self.target = self.build()
        return right


class Plan:
    """The JSON of a plan."""

    name = "plan"

    def __init__(self, folder):
        self.path = folder / "plan"
        plan = reprune.make_plan(small_resnet(blocks=1), X, sparsity=0.5)
        self.path.write_text(plan.to_json())
        self.target = small_resnet(blocks=1)
        reprune.apply(plan, model := small_resnet(blocks=1))
        self.expected = model(X)

    def before(self):
        return digest(self.target)

    def read(self, path):
        text = path.read_bytes().decode("latin-1")
        reprune.apply(reprune.PruningPlan.from_json(text), self.target)
        right = torch.equal(self.target(X), self.expected)
        self.target = small_resnet(blocks=1)
        return right


KINDS = (Model, Training, Plan)


def damage(raw, draw, json_only):
    """A damaged copy of the bytes `raw`, and how it came about."""
    ways = (flips, ends, garbage, headers, headers) if not json_only else (flips, ends, garbage, texts, texts)
    way = draw.choice(ways)
    return way(raw, draw), way.__name__


def flips(raw, draw):
    """Bits, few or many, anywhere or near the start."""
    out = bytearray(raw)
    end = draw.choice((len(raw), len(raw), min(len(raw), 3000), 8))
    for _ in range(draw.choice((1, 1, 1, 2, 8, 100))):
        out[draw.randrange(end)] ^= 1 << draw.randrange(8)
    return bytes(out)


def ends(raw, draw):
    cut = draw.randrange(len(raw))
    return draw.choice((raw[:cut], raw[cut:], raw + raw[:cut], raw[:cut] + raw[cut + 1 :], raw + b"\0"))


def garbage(raw, draw):
    size = draw.choice((0, 1, 7, 8, 9, 100, 10_000))
    start = draw.randrange(len(raw))
    block = draw.choice((b"\0" * size, draw.randbytes(size), b"[" * size, b" " * size, b"\xff" * size))
    return draw.choice((block, raw[:start] + block + raw[start + size :], struct.pack("<Q", size) + block))


def texts(raw, draw):
    """An edit of a plan's JSON, with or without a checksum."""
    content = json.loads(raw)
    if draw.random() < 0.7:
        del content["checksum"]
    edit(content, draw)
    return json.dumps(content).encode()


def headers(raw, draw):
    """An edit of a header's table of tensors, or of the head in its metadata."""
    length = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    metadata = header["__metadata__"]
    if draw.random() < 0.7:
        del metadata["checksum"]
    key = next(name for name in metadata if name != "checksum")
    if draw.random() < 0.5:
        head = json.loads(metadata[key])
        if draw.random() < 0.7 and isinstance(head.get("plan"), dict):
            head["plan"].pop("checksum", None)
        edit(head, draw)
        metadata[key] = json.dumps(head)
    elif draw.random() < 0.5:
        edit(header, draw)
    else:
        one, other = draw.sample([name for name in header if name != "__metadata__"], 2)
        header[one], header[other] = header[other], header[one]
        if "checksum" not in metadata:  # swapped names of equal shapes cannot be told without
            metadata["checksum"] = "00000000"
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def edit(content, draw):
    """Change, remove or add something at a random place in nested dictionaries and lists."""
    while True:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        if not keys:
            return
        key = draw.choice(keys)
        deeper = isinstance(content[key], (dict, list)) and content[key]
        if deeper and draw.random() < 0.85:
            content = content[key]
            continue
        way = draw.random()
        if way < 0.6:
            content[key] = draw.choice(JUNK)
        elif way < 0.8:
            del content[key]
        elif isinstance(content, dict):
            content[f"{key}x"] = content.pop(key)
        else:
            content.insert(key, draw.choice(JUNK))
        return


def run(kind, count, seed, folder):
    """Damage a file so often; what came out."""
    draw, told = random.Random(seed), Counter()
    case = kind(folder)
    raw, path = case.path.read_bytes(), folder / "damaged"
    before = case.before()
    for number in range(count):
        spoilt, way = damage(raw, draw, kind is Plan)
        path.write_bytes(spoilt)
        where = f"{case.name} {number} ({way}, seed {seed})"
        outcome = outcome_of(case, path, where)
        if outcome == "refused":
            assert case.before() == before, f"{where}: something was changed"
        before = case.before()
        # An edit by someone who takes the checksum away, too, can make another, whole content.
        assert outcome != "another" or way in ("headers", "texts"), f"{where}: another network"
        told[outcome] += 1
    return told


def outcome_of(case, path, where):
    try:
        return "equal" if case.read(path) else "another"
    except ValueError as error:
        if isinstance(case, Plan) or str(path) in str(error):
            return "refused"
        raise AssertionError(f"{where}: the file is not named: {error}") from error
    except BaseException as error:
        raise AssertionError(f"{where}: {type(error).__name__}: {error}") from error


class LargeModel:
    """A file of a network of about so many megabytes."""

    def __init__(self, megabytes):
        width = int((megabytes * 2**20 / 4 / 9) ** 0.5)
        self.target = nn.Sequential(nn.Conv2d(width, width, 3, bias=False)).to(
            memory_format=torch.channels_last
        )

    def save(self, path):
        reprune.save(self.target, path)

    def load(self, path):
        reprune.load(path, self.target)


class LargeTraining:
    """A file of a training after an event."""

    def __init__(self, megabytes, mode="shrink"):
        width = int((megabytes * 2**20 / 4 / 9 / 10) ** 0.5)
        self.make = lambda: self.build(width, mode)
        self.target = self.make()

    @staticmethod
    def build(width, mode):
        layers = (nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, width, 3), nn.ReLU())
        model = nn.Sequential(*layers, nn.Conv2d(width, width, 3), nn.ReLU(), nn.Conv2d(width, 5, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        settings = {"sparsity": 0.5, "rule": "uniform", "interval": 1, "until": 3, "mode": mode}
        return model, optimizer, reprune.Pruner(model, optimizer, images(2), **settings), {}

    def save(self, path):
        model, optimizer, pruner, _ = done = self.make()
        model(images(2)).square().mean().backward()
        optimizer.step()
        pruner.step()
        reprune.save_training(path, *done)

    def load(self, path):
        reprune.load_training(path, *self.target)


LARGE = {
    "model": LargeModel,
    "training": LargeTraining,
    "masked": lambda megabytes: LargeTraining(megabytes, "mask"),
}


def spoilt(path, way):
    """Damage a large file in place, with little memory."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        header = file.read(8 + struct.unpack("<Q", file.read(8))[0])[:-8].rstrip()
        if way == "flip":
            file.seek(size - 5)
            last = file.read(1)[0]
            file.seek(size - 5)
            file.write(bytes([last ^ 1]))
        elif way == "cut":
            file.truncate(size - 1)
        elif way in FILLINGS:  # all of the file is header
            start, filling, end = FILLINGS[way]
            piece = filling * (2**16 // len(filling))
            file.seek(0)
            file.write(struct.pack("<Q", size - 8) + (start or header[:-1]))
            while (left := size - len(end) - file.tell()) > 0:
                file.write(piece[:left] if left < len(piece) else piece)
            file.write(end)


HEAD = b'{"__metadata__":{"reprune":"', b'{"__metadata__":{"reprune_training":"'
FILLINGS = {
    "zeros": (b"", b"\0", b""),
    "spaces": (b"", b" ", b"}"),
    "lists": (b"", b',"a":[[],[],[],[]]', b"}"),
    "entries": (b"", b',"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}', b"}"),
    "text": (HEAD[0], b"[],", b'"}}'),
    "training text": (HEAD[1], b"[],", b'"}}'),
    "escapes": (HEAD[0], b'\\"', b'"}}'),
    "halves": (HEAD[0], b"\\ud83d", b'"}}'),
    "name": (b'{"', b"a", b'":{}}'),
    "names": (b'{"__metadata__":{"a', b'":"","a', b'":""}}'),
}
WAYS = ("whole", "flip", "cut", *FILLINGS)


def memory(name, way, megabytes):
    """The peak of memory while such a file is read, over its size; what is read into is not counted."""
    path = Path(tempfile.mkdtemp()) / "large"
    small = LARGE[name](8)
    small.save(path)
    small.load(path)  # what is imported and made once does not count
    pid = os.fork()
    if pid == 0:  # what was needed to write the file is not there to be used again
        LARGE[name](megabytes).save(path)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    target = LARGE[name](megabytes)
    spoilt(path, way)
    size = path.stat().st_size
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    start, refused = _peak(), False
    try:
        target.load(path)
    except ValueError:
        refused = True
    assert refused == (way != "whole")
    return (_peak() - start) / size


def _peak():
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("VmHWM:")[1].split()[0])


def main(count, seed):
    for kind in KINDS:
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            told = run(kind, count, seed, Path(folder))
        print(f"{kind.name}: {dict(told)}, {time.process_time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "memory":
        for way in sys.argv[3].split(","):
            print(f"{way}: {memory(sys.argv[2], way, int(sys.argv[4])):.3f}", flush=True)
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))
