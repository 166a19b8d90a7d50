"""Processes that hold one model in parts (FSDP2), two and then four of them; started by test_fsdp.py.

Writes {number of processes: [{case: what it found} of each process]} as JSON. The word after the program is
"usual" or "more".
"""

import json
import os
import sys
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch._dynamo  # an optimizer imports it, here once for all processes
import torch.distributed as dist
import torch.distributed.fsdp

from tests.programs.sharded_cases import applied, layouts, memory, plans, saved, twins
from tests.programs.sharded_errors import alone, refusals
from tests.programs.sharded_memory import shares
from tests.programs.sharded_pruning import interrupted, left, pruned, resumed, taken_up
from tests.programs.sharded_undo import apply_fails, event_fails, used_up

CASES = {
    "usual": {
        2: {
            "plans": plans,
            "tokens": lambda: applied("tokens", "AdamW"),
            "files": lambda: saved("convolutions"),
            "memory": memory,
            "twins": twins,
            "refusals": refusals,
            "alone": alone,
            "mask": lambda: pruned("convolutions", "SGD", "mask", events=3),
            "shrink": lambda: pruned("convolutions", "SGD", "shrink", events=3),
            "interrupted": interrupted,
            "apply fails": lambda: apply_fails("tokens", "AdamW"),
            "event fails": lambda: event_fails("convolutions", "SGD"),
            "used up": used_up,
            "shares": shares,
        },
        4: {"layouts": layouts},
    },
    "more": {
        2: {
            "convolutions": lambda: applied("convolutions", "SGD"),
            "files": lambda: saved("tokens"),
            "mask": lambda: pruned("tokens", "AdamW", "mask", events=4),
            "shrink": lambda: pruned("tokens", "AdamW", "shrink", events=4),
            "resumed mask": lambda: resumed("mask"),
            "resumed shrink": lambda: resumed("shrink"),
            "left mask": lambda: left("mask"),
            "left shrink": lambda: left("shrink"),
            "apply fails": lambda: apply_fails("convolutions", "SGD"),
            "event fails": lambda: event_fails("tokens", "AdamW"),
        },
        4: {
            "taken up mask": lambda: taken_up("mask"),
            "taken up shrink": lambda: taken_up("shrink"),
            "apply fails": lambda: apply_fails("convolutions", "AdamW"),
            "event fails": lambda: event_fails("convolutions", "AdamW"),
            "convolutions": lambda: applied("convolutions", "AdamW"),
            "tokens": lambda: applied("tokens", "SGD"),
            "mask": lambda: pruned("convolutions", "SGD", "mask", events=6),
            "shrink": lambda: pruned("convolutions", "SGD", "shrink", events=6),
        },
    },
}
"""{usual or more: {number of processes: what they do}}."""


def process(rank, size, cases, folder):
    os.chdir(folder)  # where the processes of one size leave what those of another take up
    # After a fork PyTorch makes its pool of threads anew when one asks for it. Here one does; later two of
    # autograd's may at once, of which one then finds no pool: "Invalid thread pool!"
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store{size}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=30),
    )
    found = {}
    for name, case in cases.items():
        torch.manual_seed(0)
        try:
            found[name] = case()
        except Exception:
            found[name] = traceback.format_exc()
        (folder / f"{size} {rank}").write_text(json.dumps(found))


def main():
    torch.set_num_threads(1)
    everyone = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size, cases in CASES[sys.argv[1]].items():
            children = []
            for rank in range(size):
                child = os.fork()
                if child == 0:
                    try:
                        process(rank, size, cases, folder)
                    finally:
                        sys.stderr.flush()
                        os._exit(0)
                children.append(child)
            for child in children:
                os.waitpid(child, 0)
            everyone[size] = [json.loads((folder / f"{size} {rank}").read_text()) for rank in range(size)]
    print(json.dumps(everyone))


if __name__ == "__main__":
    main()
