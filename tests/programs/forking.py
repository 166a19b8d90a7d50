"""Runs programs that need torch and reprune, each in a process that is forked from this one.

Reads a line of JSON for each, `{"module", "words", "folder", "variables", "timeout", "outputs"}`, and answers
with a line, its exit status. What it prints goes to the files "stdout" and "stderr" of the folder `outputs`;
one that takes longer than `timeout` seconds is ended by an alarm.
"""

import json
import os
import runpy
import signal
import sys
import traceback
from pathlib import Path

import torch
import torch._dynamo  # an optimizer imports it

import reprune.files
import reprune.fsdp
import reprune.planner
import reprune.pruner  # noqa: F401
from reprune.clustering.backends import cpp  # noqa: F401


def run(request):
    """Become the program; return its exit status."""
    torch.set_num_threads(1)  # see tests.programs.sharded
    for place, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(Path(request["outputs"]) / name, os.O_WRONLY | os.O_CREAT), place)
    os.chdir(request["folder"])
    os.environ.update(request["variables"])
    sys.argv = [request["module"], *request["words"]]
    signal.alarm(request["timeout"])
    status = 0
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def main():
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = run(request)
            finally:
                os._exit(status)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
