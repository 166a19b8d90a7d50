"""Damaged files: one documented error or an equal network, nothing changed, little memory.

`python tests/damaged.py COUNT SEED` damages a model's file, a training's file and a plan's JSON COUNT
times each: flipped bits, missing and doubled ends, edits of the header (with and without a checksum that
tells), garbage. `python tests/damaged.py memory KIND MEGABYTES` prints how much memory a process takes at
most besides while it reads a damaged file of that size, over the size.
"""

import json
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from digests import digest
from networks import images, small_resnet
from torch import nn
from torch.optim.swa_utils import AveragedModel

import reprune

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


def memory(kind, megabytes):
    """The peak of memory while a damaged file of that size is read, over its size."""
    folder = Path(tempfile.mkdtemp())
    width = int((megabytes * 2**20 / 4 / 9) ** 0.5)
    path = folder / "large"

    def network():
        return nn.Sequential(nn.Conv2d(width, width, 3, bias=False))

    target = network()
    reprune.save(target, path)
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    spoilt = {
        "flip": raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:],
        "cut": raw[:-1],
        "header": struct.pack("<Q", len(raw) - 9) + raw[8:],
        "zeros": struct.pack("<Q", len(raw) - 9) + raw[8 : 8 + length] + bytes(len(raw) - 8 - length),
        "spaces": struct.pack("<Q", len(raw) - 8) + raw[8 : 8 + length] + b" " * (len(raw) - 8 - length),
    }[kind]
    path.write_bytes(spoilt)
    size = len(raw)
    del raw, spoilt
    Path("/proc/self/clear_refs").write_text("5")
    start = _peak()
    try:
        reprune.load(path, target)
    except ValueError:
        print(f"{(_peak() - start) / size:.3f}")


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
        memory(sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))
