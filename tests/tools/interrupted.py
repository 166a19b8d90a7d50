"""A training that is killed at random moments and goes on; run by test_training.py in a process of its own.

`python -m tests.tools.interrupted SEED MODE KILLS [MODE KILLS ...]` trains in each mode without
interruption, then again in processes that are killed (SIGKILL) at KILLS random moments, then again with kills
in the middle of up to three saves, and prints the mode and the digests, which should be equal.
"""

import contextlib
import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import reprune
from reprune.files import tensor_file
from reprune.files.atomic import atomic_write
from tests.helpers.networks import SmallResNet, images

EPOCHS = 6


def build(mode):
    torch.manual_seed(0)
    random.seed(0)
    model = nn.Sequential(SmallResNet(), nn.Dropout(0.1)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    others = {
        "scheduler": torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=EPOCHS),
        "ema": AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True),
        "order": torch.Generator().manual_seed(3),
    }
    pruner = reprune.Pruner(
        model, optimizer, images(2), sparsity=0.5, interval=1, until=4, mode=mode, copies=[others["ema"]]
    )
    return model, optimizer, pruner, others


def train(mode, folder):
    """Train to the end, from where the file in `folder` is, and leave a digest of everything there."""
    model, optimizer, pruner, others = build(mode)
    state = (folder / "training.safetensors", model, optimizer, pruner, others)
    if state[0].exists():
        reprune.load_training(*state)
    data = images(32)
    for _ in range(pruner.epoch, EPOCHS):
        model.train()
        for batch in torch.randperm(32, generator=others["order"]).split(8):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data[batch]), batch % 5).backward()
            optimizer.step()
            others["ema"].update_parameters(model)
        others["scheduler"].step()
        pruner.step()
        reprune.save_training(*state)
    plan = pruner.finalize()
    digest = hashlib.sha256(plan.to_json().encode())
    for module in (model, others["ema"]):
        for value in module.state_dict().values():
            digest.update(value.contiguous().numpy().tobytes())
    draft = folder / "draft"
    draft.write_text(digest.hexdigest())
    draft.replace(folder / "digest")


def started(work, *arguments):
    """The id of a process that does `work`."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work(*arguments)
            status = 0
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def finished(folder):
    return (folder / "digest").exists()


def complete(mode, folder):
    start = time.perf_counter()
    assert os.waitpid(started(train, mode, folder), 0)[1] == 0
    return (folder / "digest").read_text(), time.perf_counter() - start


def dies_while_saving(mode, folder, after):
    """Train; the save with this number writes half of the file and is killed."""
    count = iter(range(EPOCHS))

    @contextlib.contextmanager
    def half(path):
        with atomic_write(path) as file:
            yield file
            if next(count) == after:
                file.truncate(file.seek(0, os.SEEK_END) // 2)
                os.kill(os.getpid(), signal.SIGKILL)

    tensor_file.atomic_write = half
    train(mode, folder)


def main(mode, kills, seed):
    torch.set_num_threads(1)
    build(mode)  # imports what tracing needs here, once, and not in every child
    moments = random.Random(seed)
    folder = Path(tempfile.mkdtemp())
    expected, seconds = complete(mode, folder)
    digests = [expected]
    done = 0
    while done < kills:
        folder = Path(tempfile.mkdtemp())
        while done < kills and not finished(folder):
            child = started(train, mode, folder)
            time.sleep(moments.uniform(0, 1.1 * seconds))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            done += not finished(folder)
        digest, _ = complete(mode, folder) if not finished(folder) else ((folder / "digest").read_text(), 0)
        digests.append(digest)
    for after in (0, 3, EPOCHS - 1)[: kills // 2]:
        folder = Path(tempfile.mkdtemp())
        assert os.waitpid(started(dies_while_saving, mode, folder, after), 0)[1] == signal.SIGKILL
        assert len(list(folder.glob(".*.tmp"))) == 1  # half a file, which the next save removes
        digests.append(complete(mode, folder)[0])
        assert {path.name for path in folder.iterdir()} == {"training.safetensors", "digest"}
    print(mode, *digests)


if __name__ == "__main__":
    for mode, kills in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
        main(mode, int(kills), int(sys.argv[1]))
