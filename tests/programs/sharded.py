"""Processes that hold one model in parts (FSDP2), two and then four of them; started by test_fsdp.py.

Writes {number of processes: {case: [what each process found]}} as JSON.
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

CASES = {2: (plans, applied, saved, memory, twins, refusals, alone), 4: (plans, applied, layouts)}
"""{number of processes: what they do}."""


def process(rank, size, folder):
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store{size}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=30),
    )
    for case in CASES[size]:
        torch.manual_seed(0)
        try:
            found = case()
        except Exception:
            found = traceback.format_exc()
        (folder / f"{size} {case.__name__} {rank}").write_text(json.dumps(found))


def main():
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in CASES:
            children = []
            for rank in range(size):
                child = os.fork()
                if child == 0:
                    try:
                        process(rank, size, folder)
                    finally:
                        sys.stderr.flush()
                        os._exit(0)
                children.append(child)
            for child in children:
                os.waitpid(child, 0)
        found = {str(size): {} for size in CASES}
        for path in folder.glob("* * *"):
            size, case, rank = path.name.split()
            found[size].setdefault(case, {})[rank] = json.loads(path.read_text())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
