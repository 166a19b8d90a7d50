"""Saves that are killed: the file is always a whole one, and nothing piles up.

`python -m tests.tools.killed_saves KILLS SEED`: a process saves two networks in turns over one file and is
killed (SIGKILL), half of the times at a random moment, half before or after a step of a save: a piece
written, the file or its folder synchronised, its mode set, its name given.
"""

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import reprune

STEPS = ("fsync", "replace", "chmod", "fchown", "write")


def saves(path, models, ready):
    """Save without end; says when the first is done."""
    while True:
        for model in models:
            reprune.save(model, path)
            ready.touch()


def dies_at(step, count, after):
    """Let the process kill itself before or after its call number `count` of a step."""
    left = iter(range(count, -1, -1))
    module, name = (os, step) if step != "write" else (reprune.files.tensor_file, "_bytes_of")
    call = getattr(module, name)

    def dies(*arguments):
        last = next(left, 0) == 0
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        found = call(*arguments)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(module, name, dies)


def killed(path, models, draw, folder):
    """One process, until it is killed."""
    ready, by_step = folder / "ready", draw.random() < 0.5
    step, count, after = draw.choice(STEPS), draw.randrange(6), draw.random() < 0.5
    pid = os.fork()
    if pid == 0:
        try:
            if by_step:
                dies_at(step, count, after)
            saves(path, models, ready)
        finally:
            os._exit(1)
    if not by_step:
        while not ready.exists():
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    ready.unlink(missing_ok=True)


def main(kills, seed):
    torch.set_num_threads(1)
    draw = random.Random(seed)
    models = [nn.Linear(200, 200) for _ in range(2)]
    found = {"first": 0, "second": 0, "left over": 0}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = folder / "place"
        place.mkdir()
        whole = []
        for model in models:
            reprune.save(model, folder / "one")
            whole.append((folder / "one").read_bytes())
        path = place / "x"
        path.write_bytes(whole[0])
        path.chmod(0o640)
        for _ in range(kills):
            killed(path, models, draw, folder)
            found["first" if whole.index(path.read_bytes()) == 0 else "second"] += 1
            assert path.stat().st_mode & 0o777 == 0o640
            left = len(list(place.iterdir())) - 1
            assert left <= 1, "the next save should have removed what the one before left"
            found["left over"] += left
            if draw.random() < 0.3:
                reprune.save(models[0], path)
                assert [p.name for p in place.iterdir()] == ["x"]
    print(f"{kills} kills: {found}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
